"""What a run costs as it grows: with dimension, modes, draws and devices. Seconds beside XLA's
counts.

    python benchmarks/cost.py --out docs/results/cost.json                    # about a quarter of
    an hour on one core python benchmarks/cost.py --out docs/results/cost.json --plot
    docs/results/cost.png --only nothing

Seconds are those that a processor spends on compiled calls, which other work beside does not
lengthen much: medians, with the least and the most; `clock` is the time that goes by. FLOPs and
bytes are XLA's own count of the compiled program; bytes are what its operations read and write, in
a cache or not. XLA counts a loop's body once: a training step has none (but the chains of
particles, which `on_many` says), and of a path one step is counted, times their number. Each row is
measured in a process of its own, and written when it is there.
"""

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp

import allmodes as am
from allmodes.devices import blocks
from allmodes.diffusion.paths import denoise
from allmodes.jobs.machine import machine
from allmodes.methods import METHODS
from allmodes.methods.iwsm.training import train
from allmodes.parts import Chain
from allmodes.targets import random_mixture
from allmodes.training import chunks
from allmodes.training.placement import Placement

MANY_DIMENSIONS = 16  # from which `thorough` has variants of its own
DIMENSIONS = (2, 4, 8, 16, 32, 64, 128)
MODES = (5, 10, 40, 120, 640)
# Draws, steps of a path, correction, repeats; the last is streamed to a file.
DRAWS = (
    (1000, 20, None, 3), (10_000, 20, None, 3), (100_000, 20, None, 1), (1_000_000, 20, None, 1),
    (10_000, 200, None, 1), (10_000, 200, "mcmc", 1),
)  # fmt: skip
TRAINED = 1000  # steps before them: a sampler of no weight at all would be corrected by another road
DEVICES = (1, 2, 4, 8)
BATCHES = (1024, 65_536)
KINDS = "all-reduce", "all-gather", "collective-permute", "reduce-scatter", "all-to-all"
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}


def timed(function, *arguments, repeats):
    """Seconds of a processor in a compiled call (median, least, most), and by the clock."""
    clock, seconds = [], []
    for _ in range(repeats):
        begin, spent = time.perf_counter(), time.process_time()
        jax.block_until_ready(function(*arguments))
        clock.append(time.perf_counter() - begin)
        seconds.append(time.process_time() - spent)
    figures = {"seconds": statistics.median(seconds), "least": min(seconds), "most": max(seconds), "repeats": repeats}
    return {**figures, "clock": statistics.median(clock)}


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile()


def counted(program):
    """XLA's count of one call."""
    count = program.cost_analysis()
    return {"gflop": count["flops"] / 1e9, "gbyte": count["bytes accessed"] / 1e9}


def both(function, *arguments, repeats):
    """Seconds and counts of one program."""
    program = compiled(function, *arguments)
    return {**timed(program, *arguments, repeats=repeats), **counted(program)}


def nbytes(tree):
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree))


def peak_mb():
    """Peak resident memory of this process (of Linux; `ru_maxrss` would be the parent's as
    well)."""
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) // 1024


def searched(method, target, key):
    """The state before training; seconds of the search with its compilation, and without."""
    seconds = []
    for _ in range(2):  # the second finds its programs in the folder that `fresh` has made
        begin = time.process_time()
        state = jax.block_until_ready(method.init(target, key))
        seconds.append(time.process_time() - begin)
    return state, {"seconds": seconds[1], "with_compilation": seconds[0]}


def of_mixture(modes, dim):
    """All parts of a run on a mixture, by the library's own choice of preset."""
    # Modes as far apart as 40 are in the usual box.
    target, key = random_mixture(7, modes, dim, box=40.0 * (modes / 40) ** (1 / dim)), jax.random.key(0)
    preset = "iwsm-thorough" if dim < MANY_DIMENSIONS else "iwsm-many-dimensions"
    method = METHODS[preset]
    state, search = searched(method, target, key)
    spent = int(state.evaluations.log_prob)

    density = both(target.evaluate, state.frame.to_x(state.buffer.z), repeats=5)
    step = both(lambda s, k: train(method, target, s, k), state, key, repeats=20)
    path, z, down = method.process(target, state)[1], state.buffer.z, method.reweighting.path_steps
    one = counted(compiled(lambda p, k, z: denoise(p, k, z, p.noise.grid(down), 0, 1), path, key, z))
    renewal = compiled(lambda s, k: method.renew(target, s, k), state, key)
    renewed = []

    def once():
        renewed.append(renewal(state, key))
        return renewed[-1].buffer

    seconds = timed(once, repeats=2 if dim < MANY_DIMENSIONS else 1)
    new = int(renewed[0].evaluations.log_prob) - spent
    sampler = method.sampler(target, state, {})
    drawn = sampler.sample(4096, key=key)
    jax.block_until_ready(drawn.x)  # else what is left of it would be timed with the next
    return {
        "preset": preset,
        "search": {**search, "evaluations": spent},
        "density": {**density, "points": len(z)},
        "step": {**step, "parameters": nbytes(state.denoiser) // 4, "points": method.batch},
        "path_step": {**one, "points": len(z)},
        "renewal": {
            **seconds, "evaluations": new, "path_steps": 2 * down,
            **{name: 2 * down * one[name] + density[name] for name in one},
        },
        "draws": {
            **timed(lambda: sampler.sample(4096, key=key).x, repeats=1), "draws": 4096, "steps": method.sample_steps,
            "evaluations": drawn.evaluations,
        },
        "state_bytes": {
            "buffer": nbytes(state.buffer), "network": nbytes(state.denoiser), "average": nbytes(state.average),
            "optimiser": nbytes(state.optimiser), "all": nbytes(state),
        },
        "peak_mb": peak_mb(),
    }  # fmt: skip


def save_sampler(folder):
    """One that is hardly trained: what its draws cost does not depend on that."""
    am.fit(am.find_target("gmm40"), key=jax.random.key(0), steps=TRAINED).save(folder)


def of_draws(folder, n, steps, correct, repeats):
    """Draws of a saved sampler."""
    sampler, key = am.load(folder), jax.random.key(1)
    options = {"steps": steps, "correct": correct}
    size = -(-n // -(-n // 4096))  # of the program that all of them go through
    jax.block_until_ready(sampler.sample(size, key=key, **options).x)
    before, result = peak_mb(), {}
    if n > 100_000:

        def draw():
            return sampler.stream(n, key=key, out=f"{folder}/{n}.npy", steps=steps)

        result["file_mb"] = 16 * n / 1e6
    else:

        def draw():
            draws = sampler.sample(n, key=key, **options)
            result["evaluations"] = draws.evaluations
            return draws.x

    return {**timed(draw, repeats=repeats), **result, "peak_mb": peak_mb(), "peak_mb_of_one_block": before}


def collectives(text):
    """Collective operations of a compiled program by kind: how many in one call, and the bytes of
    their results.

    Those within a loop count as often as it goes round, where XLA knows; else once.
    """
    calls, found, main = {}, {}, None
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%(\S+) \(.*\{$", line)
        if head:
            name, main = head[2], head[2] if head[1] else main
            calls[name], found[name] = [], []
        trips = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
        for how, called in re.findall(r"(body|to_apply|calls|\w+_computations?)=(\{[^}]*\}|%[^\s,]+)", line):
            times = int(trips[1]) if trips and how == "body" else 1
            calls[name] += [(one, times) for one in re.findall(r"%([^\s,}]+)", called)]
        operation = re.search(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(", line)
        if operation:
            found[name].append((operation[2], sum(map(_size, re.findall(r"(\w+)\[([\d,]*)\]", operation[1])))))
    number, size = Counter(), Counter()

    def walk(name, times):
        for kind, count in found[name]:
            number[kind] += times
            size[kind] += times * count
        for called, more in calls[name]:
            walk(called, times * more)

    walk(main, 1)
    return {kind: {"number": number[kind], "bytes": size[kind]} for kind in KINDS if number[kind]}


def _size(shape):
    return BYTES[shape[0]] * math.prod(int(n) for n in shape[1].split(",") if n)


def on_many(name, preset, devices, batch, changes):
    """The counts of a step on each of several devices, and its seconds where they are those of one
    core."""
    target, key = am.find_target(name), jax.random.key(0)
    method = dataclasses.replace(METHODS[preset], batch=batch, **changes)
    particles = target.symmetry is not None
    blocks.CACHE_BYTES = sys.maxsize  # all points at once, as an accelerator does: no loop is counted once

    def only_train(target, state, key):
        return train(method, target, state, key)

    with am.on_devices(devices):
        placement = Placement(method)
        state = method.template(target) if particles else placement.put(method.init(target, key))
        if particles and devices > 1:
            state = jax.tree.map(
                lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where),
                state, placement.shardings(state),
            )  # fmt: skip
        # As `am.fit` runs it, in its loop: the body is counted once, which is a step.
        step = chunks.compiled(SimpleNamespace(step=only_train), target, placement, state, key)
        whole = chunks.compiled(method, target, placement, state, key)
    result = {"batch": batch, "buffer": method.buffer, "devices": devices, **counted(step)}
    if not particles:
        result |= timed(step, state, key, 1, repeats=20 if batch < 10_000 else 3)
    if isinstance(method.estimator, Chain):
        z = jax.ShapeDtypeStruct((batch // devices, target.dim), jnp.float32)
        result["chain"] = {"moves": method.estimator.moves, **counted(compiled(target.evaluate, z))}
    exchanged = collectives(step.as_text())
    more = collectives(whole.as_text())
    result |= {"parameters": nbytes(method.template(target).denoiser) // 4, "collectives": exchanged}
    # What the whole program has besides: a renewal, and a local move where there are any.
    result["renewal_collectives"] = {
        kind: {what: more[kind][what] - exchanged.get(kind, {}).get(what, 0) for what in more[kind]} for kind in more
    }
    return result


def fresh(function, *arguments, devices=1):
    """Call a function in a new process that sees so many devices."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }  # fmt: skip
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            return pool.submit(function, *arguments).result()


def dimension():
    for dim in DIMENSIONS:
        yield str(dim), fresh(of_mixture, 40, dim)


def modes():
    for count in MODES:
        yield str(count), fresh(of_mixture, count, 2)


def draws():
    with tempfile.TemporaryDirectory() as folder:
        fresh(save_sampler, f"{folder}/run")
        for n, steps, correct, repeats in DRAWS:
            name = f"{n}, {steps} steps" + (f", {correct}" if correct else "")
            yield name, fresh(of_draws, f"{folder}/run", n, steps, correct, repeats)


def devices():
    for count in DEVICES:
        for batch in BATCHES:
            changes = {"buffer": 16 * batch, "start": "broad"}
            yield (
                f"gmm40, {batch}, {count}",
                fresh(on_many, "gmm40", "iwsm-thorough", count, batch, changes, devices=count),
            )
    for count in (1, 8):
        yield f"lj55, 32, {count}", fresh(on_many, "lj55", "iwsm-many-particles", count, 32, {}, devices=count)


def plot(result, out):
    """Seconds of each part over dimension and over modes."""
    import matplotlib.pyplot as plt

    parts = {
        "search": lambda row: row["search"]["seconds"],
        "renewal": lambda row: row["renewal"]["seconds"],
        "4,096 draws": lambda row: row["draws"]["seconds"],
        "400 training steps": lambda row: 400 * row["step"]["seconds"],
        "16,384 evaluations": lambda row: row["density"]["seconds"],
    }
    _, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for ax, section in zip(axes, ("dimension", "modes"), strict=True):
        x = [int(name) for name in result[section]]
        for name, seconds in parts.items():
            ax.loglog(x, [seconds(row) for row in result[section].values()], "o-", markersize=4, label=name)
        ax.set_xticks(x, [str(n) for n in x])
        ax.minorticks_off()
        ax.set_xlabel({"dimension": "dimensions (40 modes)", "modes": "modes (2 dimensions)"}[section])
        ax.grid(alpha=0.3)
    axes[0].axvline(math.sqrt(8 * 16), color="grey", linestyle=":", linewidth=1)
    axes[0].set_ylabel("seconds on one core")
    axes[1].legend(fontsize=8)
    plt.savefig(out, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="dimension,modes,draws,devices")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    result = json.loads(args.out.read_text()) if args.out.exists() else {}
    result |= {"command": "python benchmarks/cost.py --out docs/results/cost.json", "machine": machine()}
    for section in (part for part in (dimension, modes, draws, devices) if part.__name__ in args.only.split(",")):
        result[section.__name__] = {}
        for name, row in section():
            print(section.__name__, name, json.dumps(row), flush=True)
            result[section.__name__][name] = row
            args.out.write_text(json.dumps(result, indent=1) + "\n")
    if args.plot:
        plot(result, args.plot)


if __name__ == "__main__":
    main()
