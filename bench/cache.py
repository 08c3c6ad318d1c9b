"""Where things that took time to make are kept between runs."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

from bench.errors import SpecError
from bench.files import expand_home


def cache_folder() -> Path:
    """Return the cache folder: PARETOGRID_CACHE, or paretogrid in the user's cache folder.

    Raises SpecError where neither is known.
    """
    given = os.environ.get("PARETOGRID_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = expand_home(given) if given else expand_home(home) / "paretogrid"
        return folder.resolve()
    except RuntimeError:
        raise SpecError(
            f"Nobody knows the home folder of {given or home}, where prepared variants are kept. "
            "Name a folder in the environment variable PARETOGRID_CACHE."
        ) from None


@cache
def code_version() -> str:
    """Return a digest of this package's source, so that changed code never meets an old cache."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
