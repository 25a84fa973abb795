"""The field's tables: what is there is kept, what failed is empty with its reason, what others have
published is marked as theirs."""

import json
import subprocess
import sys

import pytest
from helpers import call

from allmodes import targets
from allmodes.errors import ConfigError
from allmodes.files import interrupt
from allmodes.files.run_folder import Run
from allmodes.jobs.tables import cell as cells
from allmodes.jobs.tables.cell import FAILED, Work, fill, limits_of
from allmodes.jobs.tables.job import tables
from allmodes.jobs.tables.published import PUBLISHED, SOURCES, published_of
from allmodes.jobs.tables.rows import COLUMNS, rows_of
from allmodes.jobs.tables.suites import SUITES, draws_of
from allmodes.methods import METHODS

LIMITS = limits_of(1000, 60.0, None)


def result(shift=0.0, corrected=False, elbo=-1.0):
    """As a run writes it."""
    entry = {"mode_tv": {"value": 0.1 + shift, "floor": 0.02}, "w2": {"value": 5.0 + shift, "floor": 3.0}}
    return {
        "metrics": {
            **entry, "modes_found": {"value": 39, "of": 40, "floor": 40}, "elbo": {"value": elbo, "std_error": 0.1},
            "eubo": {"value": 2.0, "std_error": 0.1}, "gap": {"value": None if elbo is None else 2.0 - elbo},
            "log_z_error": {"value": -0.3 - shift, "std_error": 0.05}, "reverse_ess": {"value": 0.25},
        },
        "metrics_corrected": {"w2": {"value": 3.1, "floor": 3.0}} if corrected else {},
        "evaluations": {"train": 900, "sample": 100, "correct": 4000 if corrected else 0, "modes": 17},
        "seconds": {"compile": 1.0, "train": 2.0, "sample": 3.0, "correct": 4.0, "evaluate": 50.0},
        "verdict": {"word": "trusted"}, "machine": "m", "versions": {},
    }  # fmt: skip


def work(method="dds", target="gmm40", seed=0):
    return Work(target, method, METHODS[method], seed, draws_of(target))


def put(out, one, found, limits=LIMITS):
    one.folder(out, limits).create().write_json("result.json", found)


@pytest.fixture
def no_runs(monkeypatch):
    monkeypatch.setattr(cells, "command_of", None)


def test_rows_are_medians_with_floors_and_corrected_draws_have_a_row_of_their_own():
    raw, corrected = rows_of("dds", 1000, {0: result(0.0, True), 1: result(0.2, True), 2: result(0.1, True)}, {})
    assert raw["figures"]["w2"] == {"median": 5.1, "least": 5.0, "most": 5.2, "floor": 3.0}
    assert raw["figures"]["gap"]["median"] == 3.0
    assert raw["figures"]["log_z_error"] == {"median": 0.4, "least": 0.3, "most": 0.5, "std_error": 0.05}
    assert raw["figures"]["modes_found"]["of"] == 40
    assert raw["figures"]["evaluations"]["median"] == 1000  # finding modes for the report is not the sampler's
    assert raw["figures"]["seconds"]["median"] == 6.0  # nor is judging
    assert raw["seeds"]["1"]["w2"] == 5.2
    assert corrected["draws"] == "corrected"
    assert corrected["figures"]["evaluations"]["median"] == 5000
    assert corrected["figures"]["seconds"]["median"] == 10.0
    assert set(corrected["figures"]) == {"w2", "evaluations", "seconds"}  # bounds are the sampler's


def test_a_bound_that_is_not_finite_is_told_and_not_left_out():
    (row,) = rows_of("dds", 1000, {0: result(elbo=None), 1: result()}, {})
    assert row["figures"]["elbo"] == {"median": -1.0, "least": -1.0, "most": -1.0, "std_error": 0.1, "not_finite": 1}
    (row,) = rows_of("dds", 1000, {0: result(elbo=None)}, {})
    assert row["figures"]["gap"] == {"not_finite": 1}


def test_a_table_of_what_is_there(tmp_path, no_runs):
    for seed in (0, 1):
        put(tmp_path, work("dds", seed=seed), result(0.1 * seed, corrected=True))
        put(tmp_path, work("smc", seed=seed), result(0.1 * seed))
    line = {"target": "gmm40", "method": "theirs", "metrics": {"w2": {"value": 3.3, "floor": 3.0}}}
    (tmp_path / "line.json").write_text(json.dumps(line))
    options = {"targets": ["gmm40"], "judged": [tmp_path / "line.json"], "command": "allmodes benchmark tables sgds"}
    table = tables("sgds", ["dds", "smc"], [LIMITS], 2, tmp_path, **options)
    rows = table["targets"]["gmm40"]["rows"]
    assert [(row["method"], row["draws"]) for row in rows] == [
        ("dds", "raw"), ("dds", "corrected"), ("smc", "raw"), ("theirs", "raw"),
    ]  # fmt: skip
    assert json.loads((tmp_path / "tables-sgds.json").read_text()) == table
    assert (tmp_path / "tables-sgds.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "tables-sgds.md").read_text().splitlines()
    assert all(len(line) <= 100 for line in page if not line.startswith(("|", "allmodes ")))
    body = [line for line in page if line.startswith("| ")]
    titles = [title.strip() for title in body[0].split("|")]
    shown = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")] for line in body[2:]}
    assert shown["exact draws"][titles.index("W2")] == "3.00"
    assert shown["smc, 1,000"][titles.index("gap")] == "3.00"
    assert shown["smc, 1,000"][titles.index("modes")] == "39 of 40"
    assert shown["theirs"][2] == "judged"
    theirs = shown["*TB + LS + LP*"]
    assert theirs[2] == "*published: SGDS*"
    assert theirs[titles.index("gap")] == "*0.69*"
    assert theirs[titles.index("evaluations")] == "*320 million*"
    assert theirs[titles.index("mode weights, TV")] == ""  # not guessed
    assert "not measured here" in " ".join(page)
    assert any(line.startswith("- SGDS: arXiv 2505.19552v4") for line in page)


def test_any_registered_method_has_a_cell(tmp_path, no_runs):
    known = [name for name in METHODS if name != "iwsm"]
    for name in known:
        put(tmp_path, work(name), result())
    table = tables("gmm40", known, [LIMITS], 1, tmp_path)
    assert [row["method"] for row in table["targets"]["gmm40"]["rows"]] == known


def answers(monkeypatch, code):
    """Cells run this code in the place of `allmodes run`; returns the commands that they would
    have run."""
    asked = []

    def command(run, *_):
        asked.append(run)
        return [sys.executable, "-c", code.replace("RUN", str(run.path))]

    monkeypatch.setattr(cells, "command_of", command)
    return asked


def test_a_cell_that_fails_is_empty_with_its_reason_and_kept_so(tmp_path, monkeypatch):
    asked = answers(monkeypatch, "import sys; print('x\\nallmodes: needs a gradient', file=sys.stderr); sys.exit(2)")
    assert fill(work(), tmp_path, LIMITS, 2) == (None, "needs a gradient")
    assert fill(work(), tmp_path, LIMITS, 2) == (None, "needs a gradient")
    assert len(asked) == 1
    table = tables("gmm40", ["dds"], [LIMITS], 1, tmp_path)
    assert len(asked) == 1
    (row,) = table["targets"]["gmm40"]["rows"]
    assert row["figures"] == {}
    assert row["reasons"] == {"0": "needs a gradient"}
    assert "- dds, 1,000, seed 0: no result: needs a gradient" in (tmp_path / "tables-gmm40.md").read_text()
    answers(monkeypatch, f"import pathlib; pathlib.Path('RUN/result.json').write_text({json.dumps(result())!r})")
    assert fill(work(), tmp_path, LIMITS, 2, again=True).result["verdict"]["word"] == "trusted"
    assert not (work().folder(tmp_path, LIMITS) / FAILED).exists()


def test_a_cell_that_takes_too_long_is_ended_and_tried_again_with_more_time(tmp_path, monkeypatch):
    asked = answers(monkeypatch, "import time; time.sleep(600)")
    short = limits_of(1000, None, 0.2)
    assert fill(work(), tmp_path, short, 2).reason == "ended after 0.2 s without a result"
    assert fill(work(), tmp_path, short, 2).reason == "ended after 0.2 s without a result"
    assert len(asked) == 1
    fill(work(), tmp_path, limits_of(1000, None, 0.3), 2)
    assert len(asked) == 2


def test_seconds_are_for_methods_that_train_and_all_have_a_timeout(tmp_path, monkeypatch):
    called = {}

    def fake(command, *, timeout, **options):
        called[command[command.index("--method") + 1]] = (command, timeout)
        return subprocess.CompletedProcess(command, 3, "", "")

    monkeypatch.setattr(interrupt, "call", fake)
    for name in ("dds", "smc"):
        assert fill(work(name), tmp_path, LIMITS, 2).reason == "ended with status 3"
    command, timeout = called["dds"]
    assert command[command.index("--seconds") + 1] == "60"
    assert command[command.index("--evaluations") + 1] == "1000"
    assert "--seconds" not in called["smc"][0]
    assert timeout == called["smc"][1] == 120.0


def test_an_interruption_of_a_cell_is_one_of_the_table(tmp_path, monkeypatch):
    answers(monkeypatch, f"import sys; sys.exit({interrupt.STATUS})")
    with pytest.raises(KeyboardInterrupt):
        fill(work(), tmp_path, LIMITS, 2)
    assert not (Run(tmp_path) / FAILED).exists()


def test_what_was_published_is_of_registered_targets_and_of_named_sources():
    for row in PUBLISHED:
        assert row.target in targets.names()
        assert row.source in SOURCES
        assert set(row.figures) <= {*COLUMNS, "evaluations"}
        if {"gap", "elbo", "eubo"} <= set(row.figures):  # rounded to two digits each
            assert row.figures["eubo"] - row.figures["elbo"] == pytest.approx(row.figures["gap"], abs=0.03)
    for suite in SUITES.values():
        assert all(name in targets.names() and published_of(name) for name in suite.targets if "gmm" not in name)
    assert len(set((row.target, row.method, row.source) for row in PUBLISHED)) == len(PUBLISHED)


def test_wrong_use_is_refused(tmp_path, capsys):
    for arguments, message in [
        (("all", ["dds"], [LIMITS], 1), "unknown table 'all': there are iwsm, idem"),
        (("iwsm", ["hmc"], [LIMITS], 1), "unknown method 'hmc'"),
        (("iwsm", [], [LIMITS], 1), "needs a method"),
    ]:
        with pytest.raises(ConfigError, match=message):
            tables(*arguments, tmp_path / "new")
    with pytest.raises(ConfigError, match="'dw4' is no target of the table sgds"):
        tables("sgds", ["dds"], [LIMITS], 1, tmp_path / "new", targets=["dw4"])
    for words, message in [
        ("--evaluations many", "evaluations must be at least 1, got 'many'"),
        ("--seconds 0", "seconds must be positive"),
        ("--seeds 0", "seeds must be at least 1"),
        ("-n 1", "-n must be at least 2"),
    ]:
        assert call("benchmark", "tables", "iwsm", *words.split(), "--out", tmp_path / "new") == 2
        assert message in capsys.readouterr().err
    (tmp_path / "line.json").write_text("{}")
    words = ["--judged", tmp_path / "line.json", "--out", tmp_path / "new"]
    assert call("benchmark", "tables", "iwsm", *words) == 2
    assert "no file of `allmodes judge --out`" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_command_writes_the_table_and_says_how_it_was_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "runs", work("smc"), result(), limits_of(1000, None, None))
    words = "benchmark tables gmm40 --methods smc --evaluations 1e3 --seeds 1 --out runs"
    assert call(*words.split()) == 0
    streams = capsys.readouterr()
    assert streams.out == "runs/tables-gmm40.md\n"
    assert "gmm40, smc, 1000, seed 0: trusted" in streams.err
    assert f"allmodes {words}" in (tmp_path / "runs" / "tables-gmm40.md").read_text()
