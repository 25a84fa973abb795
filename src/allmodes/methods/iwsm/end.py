"""Where the training of IWSM is likely to end."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def shares_of_renewals(lines: Sequence[Mapping[str, Any]], every: int) -> list[tuple[int, float]]:
    """Steps at which shares of renewals were read, and the shares, from lines of `metrics.jsonl`.

    What is there before the first renewal is the share that training began with: of step 0.
    """
    seen: list[tuple[int, float]] = []
    for line in lines:
        share = line["refresh_ess"]
        if share is not None and math.isfinite(share) and (not seen or seen[-1][1] != share):
            seen.append((line["step"] if line["step"] > every else 0, share))
    return seen


def expected_end(seen: list[tuple[int, float]], enough: float, every: int, cooldown: int, most: int) -> int | None:
    """Tell where training is likely to end that cools down from the renewal on that shows an
    effective share of `enough`.

    `seen` are `shares_of_renewals`. The share is expected to be met by a line through the last one,
    from 0 or from the one before, where that rises more slowly. None where nothing tells: before
    the first renewal, and where the line does not meet it in `most` steps.
    """
    if not seen or seen[-1][0] == 0:
        return None
    last, share = seen[-1]
    slope = share / last
    if len(seen) > 1 and share > seen[-2][1]:
        slope = min(slope, (share - seen[-2][1]) / (last - seen[-2][0]))
    renewals = math.ceil(min(max(0.0, (enough - share) / max(slope, 1e-12) / every), most))
    end = (last - 1) // every * every + renewals * every + cooldown
    return end if end <= most else None
