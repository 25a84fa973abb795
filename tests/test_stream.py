"""Draws in parts to a file: the same bytes whether interrupted or not, and nothing lost."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import call

import allmodes as am
from allmodes.draws.draws import Draws
from allmodes.sampler import Sampler

KEY = jax.random.key(7)


@dataclasses.dataclass(frozen=True, eq=False)
class Normal(Sampler):
    """Draws of a standard normal, `shift` to one side."""

    def sample(self, n, *, key, shift=0.0):
        self.check(n)
        x = shift + jax.random.normal(key, (n, self.target.dim))
        return Draws(x, self.target.values(x), jnp.full(n, 0.5), n)


def normal(state=0.0):
    return Normal(am.Target(lambda x: -0.5 * jnp.sum(x**2), 3), am.IWSM(), jnp.asarray(state))


def test_a_file_holds_independent_parts_and_is_as_long_as_asked(tmp_path):
    seen = []
    path = normal().stream(
        1000, key=KEY, out=tmp_path / "d.npy", part=300, progress=lambda *done: seen.append(done), shift=2.0
    )
    draws = np.load(path, mmap_mode="r")
    assert draws.shape == (1000,)
    assert draws["x"].shape == (1000, 3)
    assert len(np.unique(draws["x"][:, 0])) == 1000
    assert abs(draws["x"].mean() - 2.0) < 5 / np.sqrt(3000)
    np.testing.assert_allclose(draws["log_prob"], -0.5 * (draws["x"] ** 2).sum(1), rtol=1e-4)
    assert np.all(draws["log_weight"] == 0.5)
    assert seen == [(300, 1000), (600, 1000), (900, 1000), (1000, 1000)]
    assert sorted(os.listdir(tmp_path)) == ["d.npy"]


def stop_after(done):
    def progress(now, n):
        if now >= done:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_file_goes_on_to_the_same_bytes(tmp_path):
    whole = normal().stream(1000, key=KEY, out=tmp_path / "whole.npy", part=300).read_bytes()
    out = tmp_path / "d.npy"
    for done in (300, 900):
        with pytest.raises(KeyboardInterrupt):
            normal().stream(1000, key=KEY, out=out, part=300, progress=stop_after(done))
        assert not out.exists()
    with open(tmp_path / "d.npy.part", "r+b") as file:  # a part that was being written when the power went
        file.seek(-60, os.SEEK_END)
        file.write(b"x" * 10)
    note = tmp_path / "d.npy.part.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "done": 600}))
    calls = []
    normal().stream(1000, key=KEY, out=out, part=300, progress=lambda *now: calls.append(now))
    assert calls == [(900, 1000), (1000, 1000)]
    assert out.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"key": jax.random.key(8)}, "key"),
        ({"n": 999}, "n"),
        ({"part": 200}, "part"),
        ({"shift": 1.0}, "options"),
        ({"state": 1.0}, "sampler"),
    ],
    ids=["key", "n", "part", "options", "sampler"],
)
def test_draws_of_another_call_are_not_mixed_in(tmp_path, change, what):
    out = tmp_path / "d.npy"
    with pytest.raises(KeyboardInterrupt):
        normal().stream(1000, key=KEY, out=out, part=300, progress=stop_after(300))
    arguments = {"n": 1000, "key": KEY, "part": 300} | change
    sampler = normal(arguments.pop("state", 0.0))
    with pytest.raises(am.ConfigError, match=rf"draws of another call \(other {what}\): delete it"):
        sampler.stream(arguments.pop("n"), out=out, **arguments)


def test_a_full_disk_says_what_is_kept(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    os.symlink("/dev/full", tmp_path / "d.npy.part")
    with pytest.raises(am.RunError, match=r"No space left on device.* 0 of 100 draws are kept"):
        normal().stream(100, key=KEY, out=tmp_path / "d.npy")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"n": 0}, "at least 1, got 0"), ({"part": 0}, "and 0"), ({"out": "d.zip"}, "one .npy file, got d.zip")],
)
def test_misuse_is_refused(tmp_path, arguments, words):
    with pytest.raises(am.ConfigError, match=words):
        normal().stream(**{"n": 10, "key": KEY, "out": tmp_path / "d.npy"} | arguments)


def test_the_command_streams_to_npy(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("allmodes.command.sample.load", lambda path: normal())
    out = tmp_path / "d.npy"
    assert call("sample", tmp_path, "-n", 50, "--out", out) == 0
    assert len(np.load(out)) == 50
    assert call("sample", tmp_path, "-n", 50, "--out", out, "--fair") == 2
    assert "--fair resamples draws that are in memory" in capsys.readouterr().err
