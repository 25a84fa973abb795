"""The run folder: files whole or not at all, the live record, checkpoints that survive damage."""

import errno
import os
import shutil
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allmodes.errors import RunError, RunWarning
from allmodes.files.atomic import write_atomically
from allmodes.files.run_folder import KEEP, Run, digest_of

# A failed read leaves Orbax's own tasks behind, which complain when they are collected.
orbax_complains = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run").create()


@pytest.fixture
def below_a_file(tmp_path):
    """A place that not even root can write."""
    (tmp_path / "file").write_text("not a folder")
    return tmp_path / "file" / "run"


# Files.


def test_a_file_is_replaced_whole_and_readable_by_others(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old and longer")
    write_atomically(path, lambda file: file.write("new"))
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    write_atomically(path, lambda file: file.write(b"\0\1"), mode="wb")
    assert path.read_bytes() == b"\0\1"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_midway(file):
        file.write("half of the new")
        file.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RunError, match=r"a\.txt: No space left on device"):
        write_atomically(path, fail_midway)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_a_write_that_is_stopped_leaves_nothing_behind(tmp_path, stop):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_midway(file):
        file.write("half of the new")
        raise stop

    with pytest.raises(stop):
        write_atomically(path, fail_midway)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_unwritable_folder_is_one_clear_error(below_a_file):
    with pytest.raises(RunError, match=r"cannot write the run folder .*file/run: Not a directory.*--out"):
        Run(below_a_file).create()
    run = Run(below_a_file)
    for write in (
        lambda: run.write_json("config.json", {}),
        lambda: run.write_draws(x=np.zeros(3)),
        lambda: run.append_metrics({"step": 1}),
        lambda: run.save_state(1, {"a": jnp.zeros(2)}, {}),
    ):
        with pytest.raises(RunError, match=r"cannot write .*Not a directory"):
            write()
    assert below_a_file.parent.read_text() == "not a folder"


def test_a_run_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(RunError, match="cannot write the run folder"):
        Run(tmp_path / "file").create()
    assert (tmp_path / "file").read_text() == "kept"


def test_creating_a_folder_twice_changes_nothing(run):
    run.write_json("config.json", {"a": 1})
    assert Run(run.path).create().read_json("config.json") == {"a": 1}
    assert os.listdir(run.path) == ["config.json"]


# JSON.


def test_what_is_not_finite_becomes_null(run):
    value = {
        "nan": float("nan"),
        "nested": [float("inf"), 1.5, {"deep": -np.inf}],
        "numpy": np.float32("nan"),
        "array": np.asarray([1.0, np.nan]),
        "whole": np.int64(3),
        "none": None,
        "true": True,
    }
    run.write_json("result.json", value)
    wanted = {
        "nan": None, "nested": [None, 1.5, {"deep": None}], "numpy": None, "array": [1.0, None],
        "whole": 3, "none": None, "true": True,
    }  # fmt: skip
    assert run.read_json("result.json") == wanted
    assert "NaN" not in (run / "result.json").read_text()


def test_a_missing_file_is_named(run):
    with pytest.raises(RunError, match=r"config\.json is missing.*not a run folder"):
        run.read_json("config.json")


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00", b"not json"])
def test_a_damaged_file_is_named(run, content):
    (run / "config.json").write_bytes(content)
    with pytest.raises(RunError, match=r"config\.json is damaged \(.+\): restore it"):
        run.read_json("config.json")


@pytest.mark.parametrize("content", ["[1, 2]", "null", '"text"', "3"])
def test_json_that_is_no_object_is_damaged(run, content):
    (run / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json is damaged \(not a JSON object\)"):
        run.read_json("config.json")


# Draws.


def test_draws_round_trip_to_the_bit(run):
    x = np.asarray([[1.0, np.nan], [-0.0, np.inf]], np.float32)
    run.write_draws(x=x, log_weight=np.asarray([-np.inf, 0.5]))
    read = run.read_draws()
    assert set(read) == {"x", "log_weight"}
    assert read["x"].dtype == np.float32
    assert read["x"].tobytes() == x.tobytes()
    np.testing.assert_array_equal(read["log_weight"], [-np.inf, 0.5])


@pytest.mark.parametrize("content", [None, b"PK", b"nothing of the kind"])
def test_draws_that_cannot_be_read_are_named(run, content):
    if content is not None:
        (run / "draws.npz").write_bytes(content)
    with pytest.raises(RunError, match=r"draws\.npz cannot be read .*allmodes sample"):
        run.read_draws()


# The live record.


def test_metrics_read_back_what_was_appended(run):
    assert run.read_metrics() == []
    run.append_metrics({"step": 10, "loss": 0.1 + 0.2, "refresh_ess": float("nan")})
    run.append_metrics({"step": 20, "loss": np.float64(1e-300)})
    assert run.read_metrics() == [
        {"step": 10, "loss": 0.1 + 0.2, "refresh_ess": None}, {"step": 20, "loss": 1e-300},
    ]  # fmt: skip
    assert run.read_metrics(up_to=19) == run.read_metrics()[:1]
    assert run.read_metrics(up_to=9) == []


def test_a_torn_last_line_is_left_out(run):
    for step in (10, 20):
        run.append_metrics({"step": step, "loss": 1.0})
    whole = (run / "metrics.jsonl").read_bytes()
    for cut in range(1, len('{"step": 20, "loss": 1.0}')):
        (run / "metrics.jsonl").write_bytes(whole[: -cut - 1])
        assert [line["step"] for line in run.read_metrics()] == [10]


def test_cutting_drops_later_lines_and_the_torn_one(run):
    for step in (10, 20, 30):
        run.append_metrics({"step": step, "loss": step / 7})
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "lo')
    first = (run / "metrics.jsonl").read_text().splitlines(keepends=True)[:2]
    run.cut_metrics(20)
    assert (run / "metrics.jsonl").read_text() == "".join(first)
    run.append_metrics({"step": 30, "loss": 0.0})
    assert [line["step"] for line in run.read_metrics()] == [10, 20, 30]
    run.cut_metrics(-1)
    assert (run / "metrics.jsonl").read_text() == ""


# Checkpoints.


def state(seed=0):
    # Large enough not to be stored within Orbax's index, which alone has checksums.
    values = np.random.default_rng(seed).normal(size=(400, 3)).astype(np.float32)
    return {
        "parameters": [jnp.asarray(values), (jnp.asarray(values[0, 0]), jnp.asarray(values[:, 1]))],
        "flags": jnp.asarray([True, False, seed % 2 == 0]),
        "counts": {"low": jnp.asarray(999_999_999 - seed, jnp.int32), "list": jnp.arange(4) + seed},
        "special": jnp.asarray([jnp.nan, -0.0, jnp.inf, 1e-45]),
        "key": jax.random.key_data(jax.random.key(seed)),
    }


def bits(tree):
    return [(a.shape, a.dtype, np.asarray(a).tobytes()) for a in jax.tree.leaves(tree)]


def steps_kept(run):
    return sorted(int(name) for name in os.listdir(run / "checkpoint") if name.isdigit())


def test_a_nested_state_round_trips_to_the_bit(run):
    run.save_state(7, state(1), {"train": 0.1 + 0.2, "compile": 3})
    for template in (state(0), jax.eval_shape(state)):
        loaded, extra = run.load_state(template)
        assert jax.tree.structure(loaded) == jax.tree.structure(state(1))
        assert bits(loaded) == bits(state(1))
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))
        assert extra == {"train": 0.1 + 0.2, "compile": 3}
    assert bits(state(0)) != bits(state(1))


def test_no_checkpoint_is_none(run):
    assert run.load_state(state()) is None
    (run / "checkpoint").mkdir()
    assert run.load_state(state()) is None


def test_the_newest_ones_are_kept(run):
    for step in range(1, KEEP + 3):
        run.save_state(step, state(step), {"step": step})
    assert steps_kept(run) == list(range(3, KEEP + 3))
    loaded, extra = run.load_state(state())
    assert extra == {"step": KEEP + 2}
    assert bits(loaded) == bits(state(KEEP + 2))


def empty_every_file(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


DAMAGES = {
    "arrays emptied": lambda folder: empty_every_file(folder / "state" / "d"),
    "arrays deleted": lambda folder: shutil.rmtree(folder / "state" / "ocdbt.process_0"),
    "index deleted": lambda folder: (folder / "state" / "manifest.ocdbt").unlink(),
    "state deleted": lambda folder: shutil.rmtree(folder / "state"),
    "torn JSON": lambda folder: (folder / "about" / "metadata").write_text('{"t'),
    "everything emptied": empty_every_file,
}


@orbax_complains
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_newest_checkpoint_falls_back_to_the_older_and_says_so(run, damage):
    for step in (10, 20):
        run.save_state(step, state(step), {"step": step})
    damage(run / "checkpoint" / "20")
    before = contents(run)
    with pytest.warns(RunWarning, match=r"checkpoint 20 cannot be read \(.+\); taken instead: step 10"):
        loaded, extra = run.load_state(state())
    assert extra == {"step": 10}
    assert bits(loaded) == bits(state(10))
    assert contents(run) == before  # reading deletes nothing
    # The way is free to write it again.
    run.save_state(20, state(20), {"step": 20})
    assert bits(run.load_state(state())[0]) == bits(state(20))


def flip_a_bit(run, step):
    for data in (run / "checkpoint" / str(step) / "state").rglob("d/*"):  # not all of them are read
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 0x10
        data.write_bytes(content)


def contents(run):
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


@orbax_complains
def test_a_flipped_bit_counts_as_damage(run):
    for step in (10, 20):
        run.save_state(step, state(step), {"step": step})
    flip_a_bit(run, 20)
    with pytest.warns(RunWarning, match="taken instead: step 10"):
        loaded, extra = run.load_state(state())
    assert bits(loaded) == bits(state(extra["step"]))


@orbax_complains
def test_unreadable_checkpoints_go_when_training_writes_past_an_older_one(run):
    for step in (10, 20):
        run.save_state(step, state(step), {})
    flip_a_bit(run, 20)
    run.save_state(10, state(10), {})  # what was read is there already: nothing is written, nothing goes
    assert steps_kept(run) == [10, 20]
    run.save_state(15, state(15), {})
    assert steps_kept(run) == [10, 15]
    assert bits(run.load_state(state())[0]) == bits(state(15))


@orbax_complains
def test_a_finished_run_has_its_last_state_or_none(run):
    for step in (10, 20):
        run.save_state(step, state(step), {})
    run.write_json("result.json", {"steps": 20, "state": digest_of(state(20))})
    assert bits(run.load_state(state(), insist=True)[0]) == bits(state(20))
    flip_a_bit(run, 20)
    before = contents(run)
    message = r"finished run of 20 steps.* is of step 10: checkpoint 20 cannot be read \(.*\)\. .*allmodes run --resume"
    with pytest.raises(RunError, match=message):
        run.load_state(state(), insist=True)
    assert contents(run) == before
    shutil.rmtree(run / "checkpoint" / "20")
    with pytest.raises(RunError, match="is of step 10: a later one is gone"):
        run.load_state(state(), insist=True)
    run.save_state(20, state(21), {})
    with pytest.raises(RunError, match=r"is not the state that result\.json and its verdict tell of"):
        run.load_state(state(), insist=True)


@orbax_complains
def test_when_all_are_damaged_the_folder_is_named(run):
    for step in (10, 20):
        run.save_state(step, state(step), {"step": step})
        empty_every_file(run / "checkpoint" / str(step))
    with pytest.raises(RunError, match=r"no checkpoint in .*run/checkpoint can be read.*Delete the folder") as caught:
        run.load_state(state())
    assert "\n" not in str(caught.value)
    assert steps_kept(run) == [10, 20]  # nothing is deleted unless another could be read


CHANGES = {
    "shape": {"flags": jnp.asarray([True])},
    "leaf more": {"more": jnp.zeros(2)},
    "leaf less": {"parameters": []},
}


def test_a_state_of_other_types_is_refused(run):
    run.save_state(10, state(), {})
    with pytest.raises(RunError, match=r"no checkpoint in .* can be read"):
        run.load_state(state() | {"flags": jnp.asarray([1.0, 0.0, 1.0])})


@orbax_complains
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_state_of_another_configuration_is_refused(run, change):
    run.save_state(10, state(), {})
    with pytest.raises(RunError, match=r"no checkpoint in .* can be read.*config\.json was changed"):
        run.load_state(state() | change)
    assert bits(run.load_state(state())[0]) == bits(state())
