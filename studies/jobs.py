"""Measurements in processes of their own, so that one cannot warm up another; what is there already
is kept.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from allmodes.files import interrupt
from allmodes.files.run_folder import Run


def measured(path: Path, script: list[str], arguments: list[Any], *, cache: bool = True) -> dict[str, Any]:
    """The JSON object at `path`, or the last line that `python SCRIPT ARGUMENTS-AS-JSON` prints,
    kept there.

    Compilations are shared through a cache beside the file, unless they are to be measured too.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shared = {"JAX_COMPILATION_CACHE_DIR": str(path.parent.absolute() / "cache")} if cache else {}
        environment = {**os.environ, **shared}
        command = [sys.executable, *script, json.dumps(arguments)]
        done = interrupt.call(command, stdout=subprocess.PIPE, text=True, env=environment)
        done.check_returncode()
        Run(path.parent).write_json(path.name, json.loads(done.stdout.splitlines()[-1]))
    return Run(path.parent).read_json(path.name)


def medians(rows: list[dict]) -> dict[str, Any]:
    """Of every figure in like rows: its median and all its values; of lists, the medians place by
    place.
    """
    figures: dict[str, Any] = {}
    for name, value in rows[0].items():
        values = [row[name] for row in rows if row[name] is not None]
        if isinstance(value, list):
            figures[name] = [statistics.median(column) for column in zip(*values, strict=True)]
        elif not isinstance(value, str):
            figures[name] = {"median": statistics.median(values), "all": values} if values else None
    return figures
