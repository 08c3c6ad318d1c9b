"""Imports: the user's files as a worker has them, imported before anything is loaded."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench import registry
from bench.files import load_file
from harness.prepare.seeding import seed_everything
from harness.prepare.users import remember_texts


def bring_in(folders: Sequence[str], plugins: Sequence[str], files: Sequence[str]) -> None:
    """Make folders importable, then import plugins and files, once each, seeded.

    What a file draws at random when it is imported is the same in every process. Raises SpecError
    for a file that fails to import.
    """
    sys.path.extend(folder for folder in folders if folder not in sys.path)
    seed_everything(0, "import")
    registry.load_plugins(plugins)
    for file in files:
        load_file(file)
    remember_texts()
