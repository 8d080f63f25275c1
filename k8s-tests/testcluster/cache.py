"""Where built things are kept between runs, outside the repository."""

import os
from collections.abc import Mapping
from pathlib import Path


def directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of all that the tests of this project keep."""
    home = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "embedding-service"
