"""The page cache: how much of a file is in memory already, so that reading it reads no disk."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path


def cached_share(path: Path) -> float:
    """Return the share of a file's pages that are in memory; NaN where that is not known.

    Source: Linux, mincore(2).
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(
                file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
            ) as mapped,
        ):
            pages = -(-len(mapped) // mmap.PAGESIZE)
            resident = (ctypes.c_ubyte * pages)()
            first = ctypes.c_char.from_buffer(mapped)
            failed = ctypes.CDLL(None).mincore(
                ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(mapped)), resident
            )
            del first  # or the map could not be closed
    except (OSError, ValueError, AttributeError):  # absent, empty, another system
        return float("nan")
    return float("nan") if failed else sum(page & 1 for page in resident) / pages
