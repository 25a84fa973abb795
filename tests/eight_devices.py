"""Run in a process of its own with eight forced devices: everything that can be seen there, as
JSON."""

import contextlib
import json
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

import allmodes as am
from allmodes.files.run_folder import Run
from allmodes.parts import Neighbours, PathMoves, Perceptron
from allmodes.training.chunks import compiled
from allmodes.training.placement import Placement

METHOD = am.IWSM.thorough(
    start="broad", steps=30, cooldown=10, batch=256, buffer=512, local_every=5, enough=None,
    reweighting=PathMoves(every=10, path_steps=5), network=Perceptron(32, 1), estimator=Neighbours(16),
)  # fmt: skip


def log_prob(x):
    return jnp.logaddexp(-jnp.sum((x - 1.0) ** 2), -jnp.sum((x + 1.0) ** 2))


def worst(a, b):
    """The largest difference of two trees, beside the larger of 1 and what differs."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    off = [np.abs(np.asarray(x, float) - np.asarray(y, float)) / np.maximum(1.0, np.abs(x)) for x, y in pairs if x.size]
    return float(max(np.nanmax(o) for o in off if not np.all(np.isnan(o))))


def main():
    target, seen = am.Target(log_prob, 2), {}
    key = jax.random.key(0)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(f"{folder}/run").create()
        samplers = []
        for devices in (None, "all"):
            with am.on_devices(devices):
                samplers.append(am.fit(target, METHOD, key=key, run=run))
                draws = [samplers[-1].sample(256, key=key, steps=10)]
                draws.append(samplers[-1].sample(256, key=key, steps=10, correct="mcmc", moves=1))
                samplers[-1] = samplers[-1], draws
        (one, draws_of_one), (eight, draws_of_eight) = samplers
        seen["state"] = worst(one.state, eight.state)
        seen["draws"] = [
            worst((a.x, a.log_weight), (b.x, b.log_weight)) for a, b in zip(draws_of_one, draws_of_eight, strict=True)
        ]
        seen["ordinary"] = all(len(a.sharding.device_set) == 1 for a in jax.tree.leaves(eight.state))
        # The checkpoint that eight devices wrote, as one reads it; and half of the way on eight,
        # the rest on one.
        back, _ = run.load_state(METHOD.template(target))
        seen["checkpoint"] = worst(back, eight.state)
        with am.on_devices(8):
            half = {"end": 0}

            def stop(progress):
                half["end"] = progress.step
                raise KeyboardInterrupt

            with contextlib.suppress(KeyboardInterrupt):
                am.fit(target, METHOD, key=key, seconds=1000, run=run, on_progress=stop)  # a first chunk of few steps
        seen["half"] = half["end"]
        seen["resumed"] = worst(am.fit(target, METHOD, key=key, run=run, resume=True).state, one.state)

    # Where the state lies, and what share of the work a device has.
    flops = []
    for devices in (None, "all"):
        with am.on_devices(devices):
            placement = Placement(METHOD)
            state = placement.put(one.state)
            flops.append(compiled(METHOD, target, placement, state, key).cost_analysis()["flops"])
    seen["share"] = flops[1] / flops[0]
    seen["rows"] = sorted(shard.data.shape[0] for shard in state.buffer.z.addressable_shards)
    seen["copies"] = len(jax.tree.leaves(state.denoiser)[0].addressable_shards)
    seen["errors"] = []
    for devices in (5, 9, 0, "some"):
        try:
            with am.on_devices(devices):
                am.fit(target, METHOD, key=key)
        except am.ConfigError as error:
            seen["errors"].append(str(error))
    print(json.dumps(seen), file=sys.stdout)


if __name__ == "__main__":
    main()
