"""What a training step and a renewal of the buffer cost, beside what the machine can do.

    python benchmarks/step_cost.py gmm40 --out docs/results/step-cost.json

Seconds are medians of compiled calls; FLOPs of a step are XLA's own count of the same step with all
points at once (it counts a loop's body once, so a renewal has none, and posterior chains count as
one move); the rate is that of a product of (rows, width) with (width, width), the network's own
shape, alone; rows are those of a block.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp

import allmodes as am
from allmodes.devices import blocks
from allmodes.diffusion.networks import network_for
from allmodes.jobs.machine import machine
from allmodes.methods import METHODS, default_for
from allmodes.methods.iwsm.training import train


def timed(function, *arguments, repeats=20):
    """Median seconds of a compiled call."""
    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def measured(function, *arguments):
    """Seconds, FLOPs and their quotient of one compiled program."""
    seconds = timed(jax.jit(function), *arguments)
    size, blocks.CACHE_BYTES = blocks.CACHE_BYTES, sys.maxsize
    try:
        # Another function object: the program above, with its blocks, is in JAX's cache.
        flops = jax.jit(lambda *a: function(*a)).lower(*arguments).compile().cost_analysis()["flops"]
    finally:
        blocks.CACHE_BYTES = size
    return {"seconds": seconds, "gflop": flops / 1e9, "gflop_per_second": flops / seconds / 1e9}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    target, key = am.find_target(args.target), jax.random.key(0)
    method = METHODS[default_for(target)]
    begin = time.perf_counter()
    state = jax.block_until_ready(method.init(target, key))
    start = time.perf_counter() - begin
    pairs = 1 if target.symmetry is None else target.symmetry.pairs
    size = state.denoiser.block(method.batch)
    width = network_for(method.network, target.symmetry).width
    a, b = jnp.ones((size * pairs, width)), jnp.ones((width, width))

    def products(a, b):
        return jax.lax.fori_loop(0, 100, lambda _, a: 0.01 * (a @ b), a)

    rate = 100 * 2 * a.size * width / timed(jax.jit(products), a, b) / 1e9
    result = {
        "command": f"python benchmarks/step_cost.py {args.target}",
        "machine": machine(),
        "start_seconds": start,
        "points_at_a_time": size,
        "product_gflop_per_second": rate,
        "step": measured(lambda s, k: train(method, target, s, k), state, key),
        "renewal_seconds": timed(jax.jit(lambda s, k: method.renew(target, s, k)), state, key, repeats=3),
    }
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
