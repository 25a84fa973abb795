"""Where the coordinates of a density live, as the command line says it."""

from typing import Any

from allmodes.errors import ConfigError


def support_of(names: str | None, bounds: str | None, periodic: str | None) -> dict[str, Any]:
    """What was given of names, bounds and circles, as `Target` has them.

    **Raises** `ConfigError` where a bound is no number.
    """
    given: dict[str, Any] = {}
    if names is not None:
        given["names"] = [name.strip() for name in names.split(",")]
    if bounds is not None:
        given["bounds"] = _bounds(bounds)
    if periodic is not None:
        given["periodic"] = [int(which) if which.isdigit() else which for which in map(str.strip, periodic.split(","))]
    return given


def _bounds(text: str) -> Any:
    """A pair for each coordinate, or a dictionary of pairs where they are given by name."""
    parts = [part.strip() for part in text.split(",")]
    if not any("=" in part for part in parts):
        return [_pair(part) for part in parts]
    named = [part.partition("=") for part in parts]
    return {int(name) if name.isdigit() else name: _pair(pair) for name, _, pair in named}


def _pair(text: str) -> tuple[float | None, float | None]:
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return (float(low) if low.strip() else None), (float(high) if high.strip() else None)
    except ValueError:
        raise ConfigError(
            f"--bounds takes LOW:HIGH, as 0:5 or 0: or :, with commas between them, got {text!r}"
        ) from None
