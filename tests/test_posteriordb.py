"""Posteriors in the layout of posteriordb: the PyMC models are the densities that the reference
draws are of, and the files are where its readers look."""

import importlib
import json
import math
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

import allmodes as am
from allmodes.targets import reference
from allmodes.targets.posteriors import labels, radial_velocity
from benchmarks.posteriordb.__main__ import CHAINS, export
from benchmarks.posteriordb.entries import ENTRIES

POINTS = 5
DIMENSIONS = {
    "mixture-labels": {"mu": 4, "sd": 4, "w": 4},
    "sensors": {"place": 16},
    "radial-velocity": {"amplitude": 2, "jitter": 1, "log_period": 1, "offset": 1, "v": 2},
}


def points(target):
    """Not far from where the mass is."""
    return np.random.default_rng(0).normal(0.3, 0.4, (POINTS, target.dim)).astype(np.float32)


def log_prob_of_parameters(name, target, x):
    """The density of the parameters that the PyMC model has, `(n,)`, in double precision."""
    if name == "mixture-labels":  # NumPyro adds the Jacobian of its own map, which is not PyMC's
        from numpyro.infer.util import log_density

        each = [{k: np.asarray(v[i]) for k, v in target.parameters(x).items()} for i in range(len(x))]
        y = labels.data().astype(np.float32)
        return np.array([float(log_density(labels._model, (y,), {}, one)[0]) for one in each])
    log_prob = np.asarray(target.values(jnp.asarray(x)), float)
    if name == "sensors":
        return log_prob
    share = 1.0 / (1.0 + np.exp(-x[:, -1].astype(float)))  # coordinates by name: the period is the last
    width = math.log(radial_velocity.LONGEST / radial_velocity.SHORTEST)
    constant = 3 * math.log(radial_velocity.SPEED) + 2 * math.log(radial_velocity.ECCENTRIC)
    jitter = np.log(np.asarray(target.parameters(x)["jitter"], float))
    return log_prob - np.log(width * share * (1.0 - share)) - constant - jitter


@pytest.mark.parametrize("name", ENTRIES)
def test_the_pymc_model_is_the_density(name):
    pytest.importorskip("pymc", reason="PyMC is not installed")
    from pymc.model.transform.conditioning import remove_value_transforms

    entry, target = ENTRIES[name], am.find_target(name)
    data = json.loads(json.dumps(entry.data()))
    model = importlib.import_module(f"benchmarks.posteriordb.models.{name.replace('-', '_')}").model(data)
    x = points(target)
    there = entry.parameters(target, x)
    log_prob = remove_value_transforms(model).compile_logp(mode="FAST_COMPILE")
    found = [float(log_prob({k: np.asarray(there[k][i]) for k in DIMENSIONS[name]})) for i in range(POINTS)]
    np.testing.assert_allclose(found, log_prob_of_parameters(name, target, x), rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("name", ENTRIES)
def test_files_are_where_readers_look(name, tmp_path, monkeypatch):
    target, n = am.find_target(name), 4000
    x = np.random.default_rng(1).normal(0.3, 0.4, (n, target.dim)).astype(np.float32)
    made = reference.Reference(x, -3.0, 0.1, [], 17)
    monkeypatch.setattr(reference, "load", lambda *a, **k: made)
    for _ in range(2):  # a second time adds nothing
        export(name, tmp_path, n, "2026-01-01")
    (path,) = (tmp_path / "posteriors").glob("*.json")
    posterior = json.loads(path.read_text())
    assert posterior["dimensions"] == DIMENSIONS[name]
    draws, info = tmp_path / "reference_posteriors/draws/draws", tmp_path / "reference_posteriors/draws/info"
    key = posterior["reference_posterior_name"]
    with zipfile.ZipFile(draws / f"{key}.json.zip") as archive:
        chains = json.loads(archive.read(f"{key}.json"))
    said = json.loads((info / f"{key}.info.json").read_text())
    names = said["diagnostics"]["diagnostic_information"]["names"]
    assert len(chains) == CHAINS
    assert all(list(chain) == names for chain in chains)
    assert {len(values) for chain in chains for values in chain.values()} == {n // CHAINS}
    first = names[0].split("[")[0]
    np.testing.assert_allclose(chains[0][names[0]][0], np.ravel(ENTRIES[name].parameters(target, x)[first][0])[0])
    assert said["checks_made"]["r_hat_below_1_01"]
    assert not said["checks_made"]["ndraws_is_10k"]
    model = json.loads((tmp_path / f"models/info/{posterior['model_name']}.info.json").read_text())
    assert "def model(data)" in (tmp_path / model["model_implementations"]["pymc"]["model_code"]).read_text()
    about = json.loads((tmp_path / f"data/info/{posterior['data_name']}.info.json").read_text())
    assert (tmp_path / f"{about['data_file']}.zip").exists()
    cited = (tmp_path / "references/references.bib").read_text()
    assert all(cited.count(f"{{{key},") == 1 for key in posterior["references"])
