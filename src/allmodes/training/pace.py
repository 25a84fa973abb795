"""How long training steps take, and how many of them fit into a time; no clock is read here."""

import math

UNSEEN = 1.0  # what the dear part of a period is taken to cost before one was seen, over the rest of the period


class Pace:
    """Seconds of a step, and of the dear part of the work that comes round every `period` steps (1:
    there is none).

    `dear`: seconds of that part which are known before one was seen, those of a slow density.

    Renewals of a buffer take as long as the hundreds of steps between two of them, so that a plain
    average over the steps so far is wrong by a factor of two until a few were seen.
    """

    def __init__(self, period: int = 1):
        self._period = period
        self.dear = 0.0
        self._plain = [0, 0.0]  # steps and seconds of chunks in which nothing dear was due
        self._dear: list[tuple[int, int, float]] = []  # renewals, steps and seconds of the others

    def add(self, first: int, steps: int, seconds: float) -> None:
        """Take note of a chunk of `steps` after step `first`."""
        renewals = self._due(first, steps)
        if renewals:
            self._dear.append((renewals, steps, seconds))
        else:
            self._plain[0] += steps
            self._plain[1] += seconds

    def _due(self, first: int, steps: int) -> int:
        """How often the dear part falls into these steps: it is due before steps that are multiples
        of the period.
        """
        if self._period <= 1:
            return 0
        before = max(0, (first - 1) // self._period) if first > 0 else 0
        return (first + steps - 1) // self._period - before if steps > 0 else 0

    @property
    def known(self) -> bool:
        """Whether any step was timed."""
        return self._plain[0] > 0 or bool(self._dear)

    @property
    def step(self) -> float:
        """Seconds of a step in which nothing dear is due."""
        if self._plain[0]:
            return self._plain[1] / self._plain[0]
        steps, seconds = (sum(chunk[i] for chunk in self._dear) for i in (1, 2))
        return seconds / steps if steps else math.nan

    @property
    def renewal(self) -> float:
        """Seconds of the dear part."""
        if self._period <= 1:
            return 0.0
        if not self._dear or not self._plain[0]:
            return UNSEEN * self._period * self.step + self.dear
        renewals, steps, seconds = (sum(chunk[i] for chunk in self._dear) for i in (0, 1, 2))
        return max(0.0, (seconds - steps * self.step) / renewals)

    def seconds(self, first: int, steps: int) -> float:
        """What `steps` after step `first` will take."""
        return steps * self.step + self._due(first, steps) * self.renewal

    def steps(self, first: int, seconds: float, most: int) -> int:
        """How many steps after step `first` fit into so many seconds, at most `most`; 0 where none
        does.
        """
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            if self.seconds(first, middle) <= seconds:
                low = middle
            else:
                high = middle - 1
        return low
