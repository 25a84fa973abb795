"""Does `allmodes audit` find planted faults, and does it keep quiet about good samplers?

    python benchmarks/audit_faults.py --out docs/results/audit.json

Samplers trained on gmm40, on gmm40 without one of its modes and with one weight off by 30 %, three
seeds of each; all audited against gmm40, those trained on the whole of it so often that there are
20 audits. The mode is the one farthest from the others. Besides, a collapse: a sampler trained on
that mode alone.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np

import allmodes as am
from allmodes.jobs.machine import machine
from allmodes.targets import gaussian_mixture, get

FAULTS = {"none": 1.0, "a mode removed": 0.0, "a weight off by 30 %": 0.7}


def planted(target, lonely, fault):
    """The density that a sampler with this fault is trained on."""
    means, variance = target.modes.means, np.log1p(np.e) ** 2
    if fault == "collapse":
        return gaussian_mixture(means[[lonely]], variance)
    weights = np.ones(len(means))
    weights[lonely] = FAULTS[fault]
    kept = weights > 0
    return gaussian_mixture(means[kept], variance, weights[kept])


def row(audit, target, lonely, fault, seed, turn):
    """What is kept of an audit; `found`: whether the basin that was tampered with is among those
    that differ."""
    differs = [b for b in audit.basins if b.differs]
    near = [b.peak is not None and np.linalg.norm(b.peak - target.modes.means[lonely]) < 0.5 for b in differs]
    return {
        "fault": fault, "seed": seed, "turn": turn, "status": int(audit.failed), "word": audit.verdict.word,
        "differ": len(differs), "found": any(near), "first_flags": sum(b.again is not None for b in audit.basins),
        "basins": len(audit.basins), "log_z": audit.log_z._asdict(), "evaluations": audit.evaluations,
        "seconds": audit.seconds,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/audit.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--good", type=int, default=20, help="audits of good samplers")
    parser.add_argument("--steps", type=int, help="of training; the method's own when not given")
    parser.add_argument("-n", type=int, help="draws of each side; the audit's own when not given")
    args = parser.parse_args()
    target = get("gmm40")
    means = target.modes.means
    apart = np.linalg.norm(means[:, None] - means, axis=-1) + np.diag(np.full(len(means), np.inf))
    lonely = int(np.argmax(apart.min(axis=1)))
    method = am.IWSM() if args.steps is None else am.IWSM(steps=args.steps)
    rows, begin = [], time.monotonic()
    for fault in ("collapse", *FAULTS):
        for seed in range(1 if fault == "collapse" else args.seeds):
            trained = target if fault == "none" else planted(target, lonely, fault)
            sampler = am.fit(trained, method, key=jax.random.key(seed))
            turns = len(range(seed, args.good, args.seeds)) if fault == "none" else 1
            for turn in range(turns):
                key = jax.random.fold_in(jax.random.key(1000 + seed), turn)
                audit = am.audit(sampler, key=key, against=target, n=args.n)
                rows.append(row(audit, target, lonely, fault, seed, turn))
                print(json.dumps(rows[-1]), flush=True)
                save(args, rows, begin)


def save(args, rows, begin):
    """Counts by fault, and the rows."""
    faults = dict.fromkeys(r["fault"] for r in rows)
    counts = {
        fault: {
            "audits": len(part), "status 1": sum(r["status"] for r in part), "found": sum(r["found"] for r in part),
            "words": {word: sum(r["word"] == word for r in part) for word in {r["word"]: 0 for r in part}},
            "median evaluations": float(np.median([r["evaluations"]["all"] for r in part])),
            "median seconds": float(np.median([r["seconds"] for r in part])),
        }
        for fault in faults
        if (part := [r for r in rows if r["fault"] == fault])
    }  # fmt: skip
    options = {k: str(v) for k, v in vars(args).items() if v is not None and k != "out"}
    whole = {
        "command": "python benchmarks/audit_faults.py", "options": options, "machine": machine(),
        "seconds": round(time.monotonic() - begin, 1), "counts": counts, "rows": rows,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
