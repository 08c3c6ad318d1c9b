"""Imports: what of the user's a worker has imported, as the runner asks for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Imports:
    """The user's files that a worker has imported, and the folders it finds their neighbours in.

    installed: the plugins of packages, which it has imported as well.
    """

    folders: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    installed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.plugins or self.files or self.installed)

    def to_json(self) -> dict[str, Any]:
        """Return what a worker is asked to import: it finds by itself what is installed."""
        told = asdict(self)
        del told["installed"]
        return told


NOTHING = Imports()
