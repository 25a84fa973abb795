import html.parser
import io
import json
import re
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allmodes.errors import RunError
from allmodes.points.weighted import resample
from allmodes.progress.bar import Progress
from allmodes.progress.numbers import duration, number, percent, with_error
from allmodes.report import facts, plots
from allmodes.report.page import pretty, write_report
from allmodes.report.scatter import log_density
from allmodes.report.tables import print_result, print_table
from allmodes.target import Target


def mixture(dim, count=3):
    means = 6.0 * np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)

    def log_prob(x):
        log_parts = -0.5 * jnp.sum((x - means) ** 2, axis=-1) - 0.5 * dim * jnp.log(2 * jnp.pi)
        return jax.nn.logsumexp(log_parts) - jnp.log(count)

    def sample(key, n):
        k_mode, k_noise = jax.random.split(key)
        return means[jax.random.randint(k_mode, (n,), 0, count)] + jax.random.normal(k_noise, (n, dim))

    return Target(log_prob, dim, name="mixture", sample=sample, log_z=0.0)


def result_of(dim):
    measured = {"value": 4.12, "floor": 3.71, "ratio": 1.1105, "ratio_std_error": 0.031, "repeats": 10}
    sigma = np.geomspace(0.05, 20, 12)
    return {
        "target": "mixture", "dim": dim, "method": "iwsm", "seed": 0, "versions": {"jax": "0.10.2"},
        "machine": "two cores", "command": "allmodes run mixture --seed 0", "steps": 4000, "draws": 400,
        "seconds": {"compile": 8.2, "train": 214.3, "sample": 3.1, "evaluate": None}, "peak_memory_mb": 812.4,
        "log_prob_evaluations": 1_312_000, "gradient_evaluations": 1_180_000, "nonfinite": {"nan": 12, "zero": 0},
        "log_z": {"value": -0.0021, "std_error": 0.0084, "truth": 0.0, "error": -0.0021},
        "metrics": {
            "w2": measured, "mmd": None, "mode_tv": {**measured, "ratio": None},
            "mode_off": {"value": 0.004, "floor": 0.0},
            "modes_found": {"value": 2, "of": 3, "floor": 3.0}, "elbo": {"value": -0.21, "std_error": float("nan")},
            "reverse_ess": {"value": 0.64}, "khat": {"value": 0.412}, "something_new": {"value": 17},
        },
        "metrics_corrected": {"w2": {**measured, "value": 3.75, "ratio": 1.0108}},
        "mode_weights": {"true": [0.4, 0.4, 0.2], "raw": [0.5, 0.496, 0.0], "corrected": [0.41, 0.4, 0.19]},
        "levels": {
            "sigma": sigma.tolist(), "loss": (1 / sigma).tolist(), "weight_ess": None, "gate": (sigma / 20).tolist(),
        },
        "figures": {
            "loss": {"label": "loss", "caption": "the loss"}, "ess": {"label": "weight ESS", "caption": "the share"},
            "level_loss": {"label": "loss", "caption": "the loss"},
            "level_gate": {"label": "blend gate", "caption": "the blend"},
        },
        "verdict": {"word": "use with correction", "reasons": ["64% of the draws are effective"]},
        "remarks": ["x[0] leans on the lower bound 0: 21% of the mass"],
        "modes": {
            "count": 250, "evaluations": 4100,
            "shown": {
                "columns": ["mode", "share", "log Z", "draws", "of training", "x[0]"],
                "note": "250 modes by 4,100 evaluations",
                "rows": [[str(i), "0.5000 ± 0.0100", "-0.693 ± 0.020", "200", "7", "-4.123 ± 1"] for i in range(1, 21)],
            },
        },
    }  # fmt: skip


def make_run(path, dim, **changes):
    target = mixture(dim)
    x = np.asarray(target.sample(jax.random.key(1), 400)) * 1.05
    x[0] = 300.0
    weight = np.random.default_rng(2).normal(size=400).astype(np.float32)
    weight[3] = -np.inf
    path.mkdir()
    np.savez(path / "draws.npz", x=x, log_prob=np.asarray(target.values(jnp.asarray(x))), log_weight=weight)
    lines = [{"step": 50 * i, "loss": 1 / i, "ess": None if i < 3 else 0.5, "more": [1]} for i in range(1, 40)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (path / "metrics.jsonl").write_text(text + '{"step": 2000, "lo')
    (path / "config.json").write_text(json.dumps({"seed": 0, "method": {"clip": None, "batch": 512, "ema": True}}))
    (path / "result.json").write_text(json.dumps(result_of(dim) | changes))
    return path, target


class Page(html.parser.HTMLParser):
    """Checks nesting; gathers the visible text, the references and the images' texts."""

    VOID = ("meta", "img", "source", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.references, self.alts, self.styles = [], "", [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "srcset", "href")]
        self.alts += [value for name, value in attrs if name == "alt"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.styles += data
        else:
            self.text += data.replace("\N{NO-BREAK SPACE}", " ")


def read(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_whole_page(tmp_path, dim):
    run, target = make_run(tmp_path / "run", dim)
    written = write_report(run, target=target)
    assert written == run / "report.html"
    assert sorted(p.name for p in run.iterdir()) == [
        "config.json", "draws.npz", "metrics.jsonl", "report.html", "result.json"
    ]  # fmt: skip
    page = read(written)
    assert not re.search(r"\b(None|nan|NaN|inf|undefined!|\{\{|\}\})\b", page.text)
    assert all(reference.startswith("data:image/png;base64,") for reference in page.references)
    assert "url(" not in page.styles
    assert "@import" not in page.styles
    for words in (
        "use with correction", "64% of the draws", "\u22120.0021 ± 0.0084", "known value 0", "64%", "1.31 million",
        "3 min 34 s", "812 MB", "1.11 ± 0.03", "1.01 ± 0.03", "2 of 3", "allmodes run mixture --seed 0", "method.batch",
        "At 12 points", "leans on the lower bound 0", "\u22120.693 ± 0.020", "\u22124.123 ± 1", "of training",
        "The first 20 of 250 modes of the raw draws: share", "250 modes by 4,100 evaluations.",
        "Energies", "Log weights", "Mode weights", "By step", "By noise level", "something new",
    ):  # fmt: skip
        assert words in page.text, words
    assert len(page.alts) == {1: 6, 2: 8, 5: 9}[dim]
    assert "method.clip" not in page.text  # not set


def test_bare_run(tmp_path):
    """Only result.json, and next to nothing in it."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "result.json").write_text('{"target": "bare", "verdict": {"word": "do not use"}, "metrics": {"w2": {}}}')
    page = read(write_report(run))
    assert "do not use" in page.text
    for absent in ("None", "nan", "Draws", "Compared", "Training", "What was run", "Floor", "log Z"):
        assert absent not in page.text
    assert page.references == []


def test_parts_drop_out(tmp_path):
    """No target: no exact draws and no contours; no modes; no truth; damaged draws are said to be
    damaged."""
    run, target = make_run(tmp_path / "run", 2, mode_weights=None, metrics_corrected={}, log_z={"value": 1.5})
    page = read(write_report(run))
    assert "contours" not in page.text + "".join(page.alts)
    assert "Mode weights" not in page.text.replace("Mode weights, total variation", "")
    assert "known value" not in page.text
    assert "Corrected draws" in page.text  # the picture, from the weights
    (run / "draws.npz").write_bytes(b"PK\x03\x04 torn")
    (run / "config.json").write_text("{")
    page = read(write_report(run, target=target))
    assert "draws.npz could not be read" in page.text
    assert "config.json could not be read" in page.text
    assert "Energies" not in page.text


@pytest.mark.parametrize(
    "modes",
    [
        {},
        {"count": 3},
        {"shown": []},
        {"shown": {"columns": ["mode"], "rows": []}},
        {"shown": {"columns": ["mode"], "rows": [["1", 2]]}},
    ],
)
def test_a_mode_table_that_is_not_there_or_damaged_is_left_out(tmp_path, modes, capsys):
    run, target = make_run(tmp_path / "run", 2, modes=modes, remarks=None)
    page = read(write_report(run, target=target))
    assert "Modes of the draws" not in page.text
    print_result(result_of(2) | {"modes": modes})
    assert "modes of the raw draws" not in capsys.readouterr().out


def test_the_terminal_shows_ten_modes_and_the_remarks(capsys):
    print_result(result_of(2))
    out = capsys.readouterr().out
    assert "  note: x[0] leans on the lower bound 0: 21% of the mass" in out
    assert "the first 10 of 250 modes of the raw draws" in out
    assert "250 modes by 4,100 evaluations" in out
    assert out.count("0.5000 ± 0.0100") == 10


def test_draws_of_another_dimension(tmp_path):
    run, _ = make_run(tmp_path / "run", 5, levels={}, mode_weights={})
    (run / "metrics.jsonl").unlink()
    assert "exact draws" not in "".join(read(write_report(run, target=mixture(2))).alts)


def test_user_text_is_escaped(tmp_path):
    evil = "<script>alert(1)</script> & 'x'"
    run, _ = make_run(
        tmp_path / "run",
        2,
        levels={},
        mode_weights={},
        target=evil,
        command=evil,
        machine=evil,
        verdict={"word": evil, "reasons": [evil]},
    )
    (run / "config.json").write_text(json.dumps({evil: evil}))
    (run / "draws.npz").unlink()
    (run / "metrics.jsonl").unlink()
    written = write_report(run)
    assert "<script" not in written.read_text(encoding="utf-8")
    assert (
        read(written).text.count(evil) == 9
    )  # title twice, h1, banner and its reason, machine, command, setting twice


@pytest.mark.parametrize("text", [None, "", '{"target": "x"', "[1, 2]", '{"metrics": [1]}', "\udcff"])
def test_damaged_result(tmp_path, text):
    if text is not None:
        (tmp_path / "result.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError, match=r"result\.json") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_folder(tmp_path):
    with pytest.raises(RunError, match="no run folder"):
        write_report(tmp_path / "absent")


def colours(data):
    """Size and number of distinct colours of a PNG."""
    import matplotlib.image

    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    pixels = matplotlib.image.imread(io.BytesIO(data)).reshape(-1, 4)
    assert len(pixels) == width * height
    return width, len(np.unique((pixels * 255).astype(np.uint8), axis=0))


def patchy(x):
    """A density with no mass on one side, NaN in a corner and an infinite spike."""
    value = jnp.where(x[0] > 0, -0.5 * jnp.sum(x**2), -jnp.inf)
    return jnp.where(x[1] > 2, jnp.nan, value)


FIGURES = {
    "nowhere finite": lambda x, w: plots.plot_draws(x, target=Target(lambda x: jnp.nan * x[0], 2)),
    "patchy": lambda x, w: plots.plot_draws(x, target=Target(patchy, 2), kind="corrected"),
    "flat": lambda x, w: plots.plot_draws(x, target=Target(lambda x: 0.0 * x[0], 2)),
    "all draws alike": lambda x, w: plots.plot_draws(np.ones_like(x), exact=np.ones_like(x)),
    "marginals": lambda x, w: plots.plot_marginals({"raw": x, "exact": x + 1}),
    "130 modes": lambda x, w: plots.plot_mode_weights(
        w[:130] / w[:130].sum(), {"raw": np.eye(130)[5]}, draws=500, off=0.1
    ),
    "1000 modes": lambda x, w: plots.plot_mode_weights(np.full(1000, 0.001), {"raw": w[:1000] / w.sum()}, draws=500),
    "no spread of energies": lambda x, w: plots.plot_energies({"raw": np.ones(9), "exact": np.full(9, np.inf)}),
    "one weight": lambda x, w: plots.plot_log_weights(np.where(w == w.max(), 0.0, -np.inf), khat=2.5),
    "gaps": lambda x, w: plots.plot_training(np.arange(5.0), {"loss": np.array([np.nan, 3, np.nan, 0.1, 2])}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn(name):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    x = np.random.default_rng(0).normal(size=(1000, 2))
    width, many = colours(plots.png(FIGURES[name](x, np.exp(x[:, 0])), dpi=80))
    assert width >= 368
    assert many > 8
    assert dict(mpl.rcParams) == before


def test_resample():
    counts = np.bincount(
        resample(np.log(np.array([0.1, 0.2, 0.0, 0.7]) + 0.0, where=[1, 1, 0, 1], out=np.full(4, -np.inf)))
    )
    assert counts.tolist() == [0, 1, 0, 3] or counts.tolist() == [1, 0, 0, 3] or counts.tolist() == [1, 1, 0, 2]
    assert resample(np.full(4, -np.inf)) is None


def test_numbers():
    assert [number(value) for value in (None, float("nan"), 1234567, 0.0, 4.123, 1.3e7, -2e-5, float("-inf"))] == [
        "", "", "1,234,567", "0", "4.12", "1.30e7", "-2.00e-5", "-\u221e"
    ]  # fmt: skip
    assert with_error(-0.0021, 0.0084) == "-0.0021 ± 0.0084"
    assert with_error(12.3456, None) == "12.3"
    assert [percent(value) for value in (None, 0.64, 0.0042, 0, 1e-9)] == ["", "64%", "0.42%", "0%", "< 0.001%"]
    assert [duration(value) for value in (0.41, 59.7, 214.3, 7500)] == ["0.4 s", "1 min 0 s", "3 min 34 s", "2 h 5 min"]
    assert pretty("-1.30e-07, k^ of x-1 file2e") == "\u22121.30\u00a0\u00d7\u00a010\u207b\u2077, k\u0302 of x-1 file2e"


def test_tables():
    out = io.StringIO()
    print_result(result_of(2), file=out)
    print_result({}, file=out)
    print_table(("name", "value"), [("[bold]x[/bold]", 3), ("y", None)], title="T", file=out)
    text = out.getvalue()
    for words in ("use with correction", "2 of 3", "1.11 ± 0.03", "1.01 ± 0.03", "[bold]x[/bold]", "-0.0021 ± 0.0084"):
        assert words in text
    assert "None" not in text
    assert not re.search(r"\bnan\b", text)


def test_progress_without_a_terminal():
    out = io.StringIO()
    with Progress(stream=out) as progress:
        progress.message("searching [x]")
        for step in range(1, 101):
            progress.update(
                step=jnp.asarray(step),
                total_steps=100,
                figures={"loss": "0.500"},
                evaluations=1000 * step,
                seconds=step,
                left=100 - step,
            )
    lines = out.getvalue().splitlines()
    assert lines == [
        "searching [x]",
        "1/100 · loss 0.500 · 1k evals (1k/s) · 1:39 left",
        "100/100 · loss 0.500 · 100k evals (1k/s) · 1:40 in all",
    ]


def test_progress_says_where_it_ended():
    out = io.StringIO()
    with Progress(stream=out) as progress:
        for step in (1, 2, 3):
            progress.update(step=step, total_steps=100, seconds=step)
    assert [line.split()[0] for line in out.getvalue().splitlines()] == ["1/100", "3/100"]


def test_progress_in_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out = Terminal()
    with Progress(stream=out) as progress:
        progress.update(step=1, total_steps=2, figures={"loss": "undefined"}, evaluations=10, seconds=1.0)
        progress.message("a [message]")
        progress.update(step=2, total_steps=2, figures={"loss": "0.100", "ESS": "0.1%"}, evaluations=20, seconds=2.0)
    assert "a [message]" in out.getvalue()
    assert "2/2 · loss 0.100 · ESS 0.1% · 20 evals (10/s) · 0:02 in all" in out.getvalue()


def test_quiet_progress():
    out = io.StringIO()
    with Progress(quiet=True, stream=out) as progress:
        progress.message("text")
        progress.update(step=1, total_steps=1)
    assert out.getvalue() == ""


def test_coordinates_have_the_names_of_their_density_and_end_at_its_bounds():
    target = Target(lambda x: -jnp.sum(x), 2, names=["rate", "scale"], bounds=[(0, None), (0, 2)])
    x = np.random.default_rng(0).uniform(0.1, 1.9, size=(200, 2))
    axes = plots.plot_draws(x, target=target).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rate", "scale")
    assert {axis.get_xlabel() for axis in plots.plot_marginals({"raw": x}, target=target).axes} == {"rate", "scale"}
    beyond = log_density(target, np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, 3.0]]))
    np.testing.assert_array_equal(np.isfinite(beyond), [True, False, False])


BOUNDED = "above 0.7, but 0.4% of the weights' sum lies beyond the largest"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"value": 0.5, "beyond": 0.02, "n": 10_000}, "weights reliable: at most 0.7"),
        (
            {"value": 0.74, "beyond": 0.004, "n": 10_000},
            BOUNDED,
        ),
        ({"value": 0.74, "beyond": 0.02, "n": 10_000}, "weights unreliable: above 0.7"),
        ({"value": 0.76, "beyond": 0.004, "n": 10_000}, "weights unreliable: above 0.7"),
        (
            {"value": 0.76, "beyond": 0.004, "n": 24_000},
            BOUNDED,
        ),
        ({"value": 0.74}, "weights unreliable: above 0.7"),  # of a result from before
    ],
)
def test_the_tile_of_the_tail_says_what_the_verdict_makes_of_it(entry, said):
    metrics = {"khat": entry, "reverse_ess": {"value": 0.73}}
    notes = {tile["label"]: tile["note"] for tile in facts.tiles({"draws": 10_000}, metrics)}
    assert notes["Pareto k\u0302"] == said
