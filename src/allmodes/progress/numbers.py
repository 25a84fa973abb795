"""How numbers are written for reading."""

import math
from typing import Any


def finite(value: Any) -> float | None:
    """Return the number, or None for whatever is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def number(value: Any, digits: int = 3) -> str:
    """Write a number for reading: `1,234`, `0.0123`, `1.3e6`; empty for whatever is not a
    number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return ""
    if math.isinf(value):
        return "\u221e" if value > 0 else "-\u221e"
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def with_error(value: Any, error: Any) -> str:
    """`value ± error`, the value to as many decimals as its error deserves."""
    value, error = finite(value), finite(error)
    if value is None:
        return ""
    if error is None or error <= 0:
        return number(value)
    decimals = min(max(0, 1 - math.floor(math.log10(error))), 6)
    return f"{value:,.{decimals}f} \u00b1 {error:,.{decimals}f}"


def percent(value: Any) -> str:
    """Write a share as a percentage."""
    value = finite(value)
    if value is None:
        return ""
    share = 100 * value
    return f"{share:.0f}%" if share >= 10 or share == 0 else f"{share:.2g}%" if share >= 1e-3 else "< 0.001%"


def count(value: Any) -> str:
    """Shorten a large count: `812`, `45,120`, `1.3 million`."""
    value = finite(value)
    if value is None:
        return ""
    for size, name in ((1e9, " billion"), (1e6, " million")):
        if value >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:,.0f}"


def duration(seconds: Any) -> str:
    """Seconds as `0.4 s`, `21 s`, `3 min 34 s` or `2 h 5 min`."""
    seconds = finite(seconds)
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
