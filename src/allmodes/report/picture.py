"""A figure as the page holds it."""

import base64
from typing import Any, NamedTuple

from allmodes.pictures.style import png


class Picture(NamedTuple):
    """One figure of the page: its image as base64 of a PNG and, where it may span the page, a wide
    one.
    """

    group: str
    title: str
    caption: str
    image: str
    wide: str | None = None


def png64(figure: Any, dpi: int = 180) -> str:
    """Draw a figure as base64 of a PNG."""
    return base64.b64encode(png(figure, dpi)).decode("ascii")
