"""Whole runs ended by signals at random moments, and gone on with: status, message, and the end, to
the last bit.

    python benchmarks/interruptions.py --count 40 --out docs/results/interruptions.json

A small job (three modes in two dimensions) is run once undisturbed. Then it is begun again and
again, and each time ended by SIGINT, SIGTERM or SIGKILL at a moment between the start of its
process and its end; gone on with, as its last line says; sometimes ended again; and in the end
compared with the undisturbed one: `draws.npz` and `corrected.npz` byte by byte, `metrics.jsonl` and
`result.json` but for times, memory and the name of the folder. Compiled programs are kept between
the runs, and a checkpoint is written each second, so that a kill falls beside one, or into the
writing of it.
"""

import argparse
import collections
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from allmodes.files import interrupt
from allmodes.jobs.machine import machine

MODEL = """
import jax, jax.numpy as jnp, numpy as np
import allmodes as am

means = np.array([[-2.0, 0.0], [2.0, 1.0], [0.0, -3.0]], np.float32)

def log_prob(x):
    return jax.nn.logsumexp(-2.0 * jnp.sum((x - means) ** 2, -1))

def sample(key, n):
    k_mode, k_noise = jax.random.split(key)
    return means[jax.random.randint(k_mode, (n,), 0, 3)] + 0.5 * jax.random.normal(k_noise, (n, 2))

target = am.Target(log_prob, 2, name="three", sample=sample, log_z=float(np.log(1.5 * np.pi)))
"""
# As `allmodes` begins, but that checkpoints are more frequent; nothing is imported before the guard
# is there.
COMMAND = """
import sys
from allmodes.command import main as cli
from allmodes.files import interrupt
interrupt.install()
from allmodes.training import budget, fit
budget.CHUNK, fit.CHECKPOINT_SECONDS = 20, 1.0
cli.main()
"""
SETTINGS = (
    "--batch 64 --buffer 512 --network.width 16 --network.depth 1 --reweighting.every 20 --reweighting.path-steps 8 "
    "--local-every 30 --cooldown 10 --enough None --steps 1000 -n 500 --judge-repeats 2"
).split()
JUDGE = ["--judge-repeats", "2"]
SIGNALS = ("SIGINT", "SIGTERM", "SIGKILL")
# What a line of progress says of the phase that follows it; the last one said counts.
PHASES = {"searching": "searching", "found": "compiling", "going on from": "compiling", "drawing": "drawing",
          "correcting": "correcting", "evaluating": "evaluating", " evals": "training"}  # fmt: skip
AGAIN = 0.3  # share of the runs gone on with that are ended again


class Process:
    """A command in a process of its own, and the lines of its stderr."""

    def __init__(self, words: list[str], cache: Path):
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        command = [sys.executable, "-c", COMMAND, "run", *words]
        self.lines: list[str] = []
        self.begin = time.monotonic()
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def phase(self, run: Path) -> str:
        """What the process is at."""
        said = [name for line in self.lines for text, name in PHASES.items() if text in line]
        if not said:
            return "starting"
        if said[-1] == "searching" and (run / "checkpoint" / "0").exists():
            return "compiling"  # and the first chunk of steps
        return said[-1]

    def wait(self) -> int:
        status = self.process.wait()
        self.reader.join()
        self.process.stderr.close()
        return status


def _times(process: Process, run: Path) -> list[float]:
    """The seconds at which each phase of an undisturbed run begins, and that of its end."""
    times, phase = [0.0], "starting"
    while process.process.poll() is None:
        if process.phase(run) != phase:
            phase = process.phase(run)
            times.append(time.monotonic() - process.begin)
        time.sleep(0.02)
    return [*times, time.monotonic() - process.begin]


def interrupted(words: list[str], run: Path, cache: Path, name: str, moment: float) -> dict:
    """Run a command, end it after so many seconds, and say how it ended and what of that is
    wrong."""
    process = Process(words, cache)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.process.wait(max(0.0, process.begin + moment - time.monotonic()))
    if process.process.poll() is not None:
        status = process.wait()
        return {"signal": name, "phase": "after the end", "status": status, "wrong": [] if status == 0 else ["status"]}
    phase, sent = process.phase(run), time.monotonic()
    process.process.send_signal(getattr(signal, name))
    status = process.wait()
    row = {
        "signal": name, "phase": phase, "moment": round(moment, 2), "status": status,
        "seconds_to_end": round(time.monotonic() - sent, 2), "last_line": (process.lines or [""])[-1],
    }  # fmt: skip
    row["last_line"] = row["last_line"].replace(str(run), "RUN")
    return row | {"wrong": _wrong(row, run, name, process.lines)}


def _wrong(row: dict, run: Path, name: str, lines: list[str]) -> list[str]:
    begun, status = (run / "config.json").exists(), row["status"]
    if name == "SIGKILL":
        return [] if status in (-signal.SIGKILL, 0) else ["status"]
    if status == 0 and (run / "report.html").exists():  # it had ended
        return []
    if row["phase"] == "starting" and status == -getattr(signal, name) and not begun and not lines:
        row["phase"] = "before any code of ours"
        return []
    if row["phase"] == "starting" and not begun and lines[-1:] == ["KeyboardInterrupt"]:
        row["phase"] = "before any code of ours"  # the interpreter says so itself
        return []
    wrong = [] if status == interrupt.STATUS else ["status"]
    promised = f"interrupted; go on with: allmodes run --resume {run}" if begun else interrupt.NOTHING
    said = [line for line in lines if "interrupted" in line]
    if said != [promised] and not (said == [interrupt.WRITTEN] and (run / "report.html").exists()):
        wrong.append("message")
    return wrong + (["traceback"] if any("Traceback" in line for line in lines) else [])


def same(run: Path, whole: Path) -> list[str]:
    """What differs from the undisturbed run, or should not be there."""
    readers = {"draws.npz": _bytes, "corrected.npz": _bytes, "metrics.jsonl": _history, "result.json": _result}
    differ = [name for name, read in readers.items() if read(run / name) != read(whole / name)]
    there = {path.name for path in run.iterdir()} ^ {path.name for path in whole.iterdir()}
    left = [path.name for path in (run / "checkpoint").iterdir() if not path.name.isdigit()]
    return differ + sorted(there) + left


def _bytes(path: Path) -> bytes:
    return path.read_bytes()


def _history(path: Path) -> list[dict]:
    return [json.loads(line) | {"seconds": 0} for line in path.read_text().splitlines()]


def _result(path: Path) -> dict:
    result = json.loads(path.read_text())
    return {name: value for name, value in result.items() if name not in ("seconds", "peak_memory_mb", "command")}


def one(
    i: int, begin: list[str], whole: Path, cache: Path, spans: list[tuple[float, float]], rng: random.Random
) -> list[dict]:
    """A run that is ended at least once; returns a row for each time. Each phase is as likely,
    whatever it takes."""
    run = whole.parent / f"run-{i}"
    rows = []
    while not rows or (rows[-1]["phase"] != "after the end" and len(rows) < 4 and rng.random() < AGAIN):
        resumed = (run / "config.json").exists()
        words = ["--resume", str(run), *JUDGE] if resumed else [*begin, "--out", str(run)]
        name = SIGNALS[i % 3] if not rows else rng.choice(SIGNALS)
        rows.append({"run": i, **interrupted(words, run, cache, name, rng.uniform(*rng.choice(spans)))})
    words = ["--resume", str(run), *JUDGE] if (run / "config.json").exists() else [*begin, "--out", str(run)]
    process = Process(words, cache)
    status = process.wait()
    rows[-1]["differs"] = same(run, whole) if status == 0 else [f"status {status}", *process.lines[-3:]]
    shutil.rmtree(run)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40, help="runs that are ended by a signal")
    parser.add_argument("--seed", type=int, default=0, help="fixes signals and moments")
    parser.add_argument("--out", type=Path, default=Path("docs/results/interruptions.json"))
    args = parser.parse_args()
    # What is ignored here would be so in the processes too, as in the background of a script.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng, rows = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as folder:
        model, cache = Path(folder) / "model.py", Path(folder) / "compiled"
        model.write_text(MODEL)
        begin = [f"{model}:target", *SETTINGS]
        for name in ("first", "whole"):  # the first compiles
            run = Path(folder) / name
            process = Process([*begin, "--out", str(run)], cache)
            times = _times(process, run)
            if process.wait():
                sys.exit("\n".join(process.lines))
        took = times[-1]
        spans = [*itertools.pairwise(times), (took, 1.05 * took)]
        repeats = not same(Path(folder) / "first", Path(folder) / "whole")
        print(f"undisturbed: {took:.1f} s, {'the same twice' if repeats else 'NOT the same twice'}", flush=True)
        for i in range(args.count):
            rows += one(i, begin, Path(folder) / "whole", cache, spans, rng)
            result = {"command": f"python benchmarks/interruptions.py --count {args.count} --seed {args.seed}",
                      "machine": machine(), "seconds_undisturbed": round(took, 1), **summary(rows)}  # fmt: skip
            args.out.write_text(json.dumps(result, indent=1) + "\n")
            print({name: value for name, value in result.items() if name != "rows"}, flush=True)
    sys.exit(1 if result["wrong_status_or_message"] or result["different_at_the_end"] else 0)


def summary(rows: list[dict]) -> dict:
    """Counts, and the rows themselves."""
    counts = collections.Counter(f"{row['signal']}, {row['phase']}" for row in rows)
    return {
        "runs": rows[-1]["run"] + 1, "interruptions": len(rows),
        "wrong_status_or_message": sum(bool(row["wrong"]) for row in rows),
        "different_at_the_end": sum(bool(row.get("differs")) for row in rows),
        "longest_seconds_to_end": max(row.get("seconds_to_end", 0.0) for row in rows),
        "counts": dict(sorted(counts.items())), "rows": rows,
    }  # fmt: skip


if __name__ == "__main__":
    main()
