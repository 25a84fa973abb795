"""What a function on the host was paid for: its values, row by row in a file that only grows, found
again by the point.

A run asks for the same points when it is done again, as it is deterministic. So one that was killed
goes on from its last checkpoint, or from the start of its search, and evaluates nothing twice.
"""

import json
from pathlib import Path

import numpy as np

from allmodes.errors import RunError

NAME = "evaluations.rows"


class Rows:
    """Rows of float64: how many of the functions are known, the point, and their values one after
    another. The first line of the file says of how many numbers these are.

    What a process that was killed has left half-written, the last row, is left out and cut off.
    """

    def __init__(self, path: Path, dim: int, widths: tuple[int, ...]):
        self._path, self._dim, self._widths = path, dim, widths
        self._size = 1 + dim + sum(widths)
        self._rows: list[np.ndarray] = []
        self._place: dict[bytes, int] = {}
        header = json.dumps({"dim": dim, "values": list(widths)}).encode() + b"\n"
        try:
            self._open(header)
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}") from error

    def _open(self, header: bytes) -> None:
        self._file = open(self._path, "a+b", buffering=0)  # noqa: SIM115, open as long as the run
        self._file.seek(0)
        found = self._file.read()
        begin, step = len(header), 8 * self._size
        if not found.endswith(b"\n") and b"\n" not in found:  # nothing, or a header that was not finished
            self._file.truncate(0)
            self._file.write(header)
            return
        if not found.startswith(header):
            self._file.close()
            raise RunError(f"{self._path} holds evaluations of another function: delete it, or take another folder")
        whole = (len(found) - begin) // step
        self._file.truncate(begin + whole * step)
        for row in np.frombuffer(found, np.float64, whole * self._size, begin).reshape(whole, self._size):
            self._note(row)

    def _note(self, row: np.ndarray) -> None:
        key = row[1 : 1 + self._dim].tobytes()
        place = self._place.setdefault(key, len(self._rows))
        if place == len(self._rows):
            self._rows.append(row)
        elif row[0] > self._rows[place][0]:
            self._rows[place] = row

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, points: np.ndarray, count: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Which of some points `(n, dim)` are known to `count` functions, `(n,)`, and values of all
        of them, a flat array `(n, width)` for each function, NaN where not.
        """
        known = np.zeros(len(points), bool)
        values = [np.full((len(points), width), np.nan) for width in self._widths[:count]]
        for i, point in enumerate(points):
            place = self._place.get(point.tobytes())
            if place is None or self._rows[place][0] < count:
                continue
            known[i], at = True, 1 + self._dim
            for value in values:
                value[i] = self._rows[place][at : at + value.shape[1]]
                at += value.shape[1]
        return known, values

    def add(self, points: np.ndarray, values: list[np.ndarray]) -> None:
        """Keep values of points, as `find` gives them.

        **Raises** `RunError` where the file cannot be written.
        """
        rows = np.full((len(points), self._size), np.nan)
        rows[:, 0], rows[:, 1 : 1 + self._dim] = len(values), points
        at = 1 + self._dim
        for value in values:
            rows[:, at : at + value.shape[1]] = value
            at += value.shape[1]
        try:
            self._file.write(rows.tobytes())
        except OSError as error:
            raise RunError(f"cannot write {self._path}: {error.strerror or error}. What is there is kept") from error
        for row in rows:
            self._note(row)

    def close(self) -> None:
        """End with the file."""
        self._file.close()
