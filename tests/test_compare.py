"""The comparison of methods: what is there is kept, tables are medians, corrections are counted."""

import json

import pytest

from allmodes.errors import ConfigError
from allmodes.files.run_folder import Run
from allmodes.jobs.compare import compare


def result(tv, corrected, train, correct=0):
    entry = lambda ratio: {"mode_tv": {"ratio": ratio}, "w2": {"ratio": 1.0}, "modes_found": {"value": 40}}  # noqa: E731
    return {
        "metrics": {
            **entry(tv), "log_z_error": {"value": -0.02},
            **({"elbo": {"value": -tv}, "eubo": {"value": 1.0}, "gap": {"value": 1.0 + tv}} if correct else {}),
        },
        "metrics_corrected": {} if corrected is None else entry(corrected),
        "evaluations": {"train": train, "sample": 100, "correct": correct}, "draws": 100,
        "seconds": {"compile": 1.0, "train": 2.0, "sample": 3.0, "correct": 4.0, "evaluate": 50.0},
        "verdict": {"word": "trusted"}, "machine": "m", "versions": {},
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Runs of two methods, two budgets, two seeds, that are there already."""
    for method, corrected, correct in (("iwsm", 1.1, 5000), ("smc", None, 0)):
        for limit, tv in ((1000, 4.0), (4000, 2.0)):
            for seed in (0, 1):
                run = Run(tmp_path / f"gmm40-{method}-{limit}-{seed}").create()
                run.write_json("result.json", result(tv + seed, corrected, limit, correct))
    return tmp_path


def test_rows_are_medians_of_what_is_delivered(folder, capsys):
    table = compare("gmm40", ["iwsm", "smc"], 4000, 2, folder, budgets=2, n=100)
    rows = {(row["method"], row["budget"]): row for row in table["rows"]}
    assert len(rows) == 4
    assert rows["smc", 1000]["metrics"]["mode_tv"] == {"median": 4.5, "least": 4.0, "most": 5.0}
    assert rows["iwsm", 1000]["metrics"]["mode_tv"]["median"] == 1.1  # corrected draws, where there are any
    assert rows["iwsm", 4000]["evaluations"]["median"] == 4000 + 100 + 5000
    assert rows["iwsm", 4000]["seconds"]["median"] == 10.0  # judging is not counted
    assert rows["iwsm", 4000]["next_100000"] == {"evaluations": 5_100_000, "seconds": 7000.0}
    assert rows["smc", 4000]["metrics"]["log_z_error"]["median"] == 0.02
    assert rows["iwsm", 1000]["metrics"]["gap"] == {"median": 5.5, "least": 5.0, "most": 6.0}  # of raw draws
    assert rows["iwsm", 1000]["metrics"]["elbo"]["median"] == -4.5
    assert "gap" not in rows["smc", 1000]["metrics"]  # it knows no density of its draws
    assert json.loads((folder / "gmm40.json").read_text()) == table
    assert (folder / "gmm40.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "gmm40.md").read_text().splitlines()
    assert page[2].startswith("| method | evaluations | time | elbo | eubo | gap |")
    assert len(page) == 4 + 4
    assert page[4].startswith("| iwsm | 6,1")
    assert "next 100,000 draws" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "methods", "evaluations", "seeds", "message"),
    [
        ("nothing", ["smc"], 10_000, 1, "unknown target 'nothing'"),
        ("gmm40", [], 10_000, 1, "needs a method"),
        ("gmm40", ["smc"], 10_000, 0, "needs a method, a seed"),
        ("gmm40", ["smc"], 1000, 1, "smallest budget is 62"),
    ],
)
def test_wrong_use_is_refused(tmp_path, target, methods, evaluations, seeds, message):
    with pytest.raises(ConfigError, match=message):
        compare(target, methods, evaluations, seeds, tmp_path, n=100)
