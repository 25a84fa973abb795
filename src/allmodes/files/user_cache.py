"""Where what can be made again is kept between processes."""

import os
from pathlib import Path


def user_cache(name: str) -> Path:
    """The folder of this name in `$ALLMODES_CACHE`, or in `allmodes` in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ALLMODES_CACHE") or Path(home) / "allmodes") / name
