"""The way in: `bench` and `harness` are paretogrid's own, whatever else is called so on the path.

The two names are common: a project that is measured may have a folder `bench`, or PYTHONPATH may
name one with a `harness` in it. This module has the one name that nobody else has.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:  # Ctrl-C in these lines is heard by nobody: only what Python has loaded already
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from pathlib import Path
    from types import ModuleType

OURS = ("bench", "harness")
INTERRUPTED = 130
"""As in `harness.errors`, which may not be imported yet."""


class OwnPackages:
    """Finds the packages of this installation, and no others of their names."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a package of ours is; None for anything else."""
        return PathFinder.find_spec(name, [str(self.root)], target) if name in OURS else None


def find_root() -> Path:
    """Return the folder with our packages: this one, or the project's in a checkout."""
    from pathlib import Path

    here = Path(__file__).resolve().parent
    return here if all((here / name).is_dir() for name in OURS) else here.parents[1]


def claim_names() -> None:
    """Let our packages be found first in this process."""
    if not any(isinstance(finder, OwnPackages) for finder in sys.meta_path):
        sys.meta_path.insert(0, OwnPackages(find_root()))


def main() -> None:
    """Run the command; interrupted before or after it listens, it ends without more words."""
    try:
        import signal

        claim_names()
        from harness.cli import main

        try:
            main()
        finally:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own end would show a traceback
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def serve(descriptor: int) -> None:
    """Be the server from which workers are forked."""
    claim_names()
    from harness.worker.server import main

    main(descriptor)


if __name__ == "__main__":
    main()
