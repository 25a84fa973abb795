"""Multimodal posteriors with checked references, in the layout of posteriordb (Magnusson et al.
2024, arXiv 2407.04967).

    python -m benchmarks.posteriordb mixture-labels sensors radial-velocity --out runs/posteriordb

Writes data, a PyMC model, the posterior and 10,000 reference draws in ten chains, each with its
information; what the folder holds already of other posteriors stays. Draws are those of `allmodes
reference NAME -n 10000`, made where they are not kept; their own checks (runs that agree, the
virial and Stein identities) stand in the comments, and posteriordb's, by ArviZ, among the
diagnostics. They are no chains: in random order, their autocorrelation is that of chance.
"""

import argparse
import datetime
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np

import allmodes as am
from allmodes.targets import reference
from benchmarks.posteriordb.entries import BIBLIOGRAPHY, ENTRIES

DRAWS, CHAINS = 10_000, 10
RHAT, CORRELATION = 1.01, 0.05  # of posteriordb: largest R^, and mean correlation of successive draws
MODELS = Path(__file__).parent / "models"
BY = "allmodes"


def export(name, out, n, added):
    """All that posteriordb has of one posterior."""
    entry, target, short = ENTRIES[name], am.find_target(name), name.replace("-", "_")
    made, posterior = reference.load(target, n, progress=print), f"{short}-{short}"
    chains = in_chains(entry.parameters(target, made.x))
    by = {"added_by": BY, "added_date": added}
    shared = by | {
        "title": entry.title, "description": entry.about, "references": list(entry.references),
        "keywords": ["multimodal"], "urls": None,
    }  # fmt: skip
    write(out / f"data/info/{short}.info.json", {"name": short, "data_file": f"data/data/{short}.json"} | shared)
    write_zipped(out / f"data/data/{short}.json", entry.data())
    code = out / f"models/pymc/{short}.py"
    code.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(MODELS / f"{short}.py", code)
    models = {"pymc": {"model_code": f"models/pymc/{short}.py", "pymc_version": ">=5"}}
    about_model = {"name": short, "prior": {"keywords": []}, "model_implementations": models, "licence": "BSD3"}
    write(out / f"models/info/{short}.info.json", shared | about_model)
    sizes = {key: int(np.prod(value.shape[2:])) for key, value in chains.items()}
    about = {
        "name": posterior, "model_name": short, "data_name": short, "reference_posterior_name": posterior,
        "dimensions": sizes, "keywords": ["multimodal"], "urls": None, "references": shared["references"],
    }  # fmt: skip
    write(out / f"posteriors/{posterior}.json", about | by)
    draws = out / "reference_posteriors/draws"
    single = by_scalar(chains)
    each = [{key: value[i].tolist() for key, value in single.items()} for i in range(CHAINS)]
    write_zipped(draws / f"draws/{posterior}.json", each)
    write(draws / f"info/{posterior}.info.json", {"name": posterior} | information(made, single) | by)
    cite(out / "references/references.bib")


def in_chains(parameters):
    """`{name: (chains, draws, ...)}`, by name; what is over after whole chains is left out."""
    return {
        name: value[: len(value) // CHAINS * CHAINS].reshape(CHAINS, -1, *value.shape[1:])
        for name, value in sorted(parameters.items())
    }


def by_scalar(chains):
    """`{"mu[1]": (chains, draws)}`: numbers from one on, the last changing fastest."""
    single = {}
    for name, value in chains.items():
        for index in np.ndindex(value.shape[2:]):
            at = ",".join(str(i + 1) for i in index)
            single[f"{name}[{at}]" if at else name] = value[(slice(None), slice(None), *index)]
    return single


def information(made, single):
    """How the draws were made, and what was found by looking at them."""
    from arviz_stats import ess, rhat

    bulk = {k: float(ess(v, method="bulk")) for k, v in single.items()}
    tail = {k: float(ess(v, method="tail", prob=(0.05, 0.95))) for k, v in single.items()}
    rhats = {k: float(rhat(v)) for k, v in single.items()}
    successive = {k: np.mean([np.corrcoef(c[1:], c[:-1])[0, 1] for c in v]) for k, v in single.items()}
    count = next(iter(single.values())).size
    checks = "; ".join(f"{check.name}: {check.off:.2f}" for check in made.checks)
    return {
        "inference": {
            "method": "tempered SMC and HMC (allmodes reference)",
            "method_arguments": {"runs": reference.RUNS, "seed": reference.SEED, "hmc_moves": reference.MOVES},
        },
        "diagnostics": {
            "diagnostic_information": {"names": list(single)}, "ndraws": count, "nchains": CHAINS,
            "effective_sample_size_bulk": list(bulk.values()), "effective_sample_size_tail": list(tail.values()),
            "r_hat": list(rhats.values()), "mean_lag1_ac": list(map(float, successive.values())),
        },
        "checks_made": {
            "ndraws_is_10k": count == DRAWS, "nchains_is_gte_4": CHAINS >= 4,
            "r_hat_below_1_01": bool(max(rhats.values()) < RHAT),
            "abs_mean_lag1_ac_below_0_05": bool(max(map(abs, successive.values())) < CORRELATION),
            "allmodes_checks": bool(made.passed),
        },
        "comments": f"log Z {made.log_z:.3f} +- {made.log_z_error:.3f}. Checks, in standard errors: {checks}",
        "versions": {"allmodes": am.__version__},
    }  # fmt: skip


def cite(path):
    """The works, once."""
    kept = path.read_text() if path.exists() else ""
    if BIBLIOGRAPHY.strip() not in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{kept}{BIBLIOGRAPHY.lstrip()}")


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_zipped(path, value):
    """`path` in an archive of its own, of which the same draws make the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(path.name), json.dumps(value) + "\n", zipfile.ZIP_DEFLATED)
    path.with_name(f"{path.name}.zip").write_bytes(held.getvalue())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("posteriors", nargs="+", choices=ENTRIES)
    parser.add_argument("-n", type=int, default=DRAWS, help="reference draws")
    parser.add_argument("--added", default=datetime.datetime.now(datetime.UTC).date().isoformat(), help="date")
    parser.add_argument("--out", type=Path, default=Path("runs/posteriordb"))
    args = parser.parse_args()
    for name in args.posteriors:
        export(name, args.out, args.n, args.added)
        print(f"{name}: {args.out}")


if __name__ == "__main__":
    main()
