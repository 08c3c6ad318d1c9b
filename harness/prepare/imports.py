"""Imports: the user's files as a worker has them, imported before anything is loaded."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench import registry
from bench.files import load_file
from harness.prepare.effects import find_effective
from harness.prepare.environment import Variables
from harness.prepare.seeding import seed_everything
from harness.prepare.users import find_imported, is_users, remember_texts


@dataclass
class Brought:
    """What the user's files do in this process as they are imported, whatever model is made.

    modules: those that do something at their top. variables: of the environment, that they changed.
    """

    modules: frozenset[str] = frozenset()
    variables: Mapping[str, str | None] = field(default_factory=dict)


brought = Brought()


def bring_in(folders: Sequence[str], plugins: Sequence[str], files: Sequence[str]) -> None:
    """Make folders importable, then import plugins and files, once each, seeded.

    What a file draws at random when it is imported is the same in every process. Raises SpecError
    for a file that fails to import.
    """
    before = {*sys.modules}
    sys.path.extend(folder for folder in folders if folder not in sys.path)
    seed_everything(0, "import")
    with Variables() as variables:
        registry.load_plugins(plugins)
        for file in files:
            load_file(file)
    remember_texts()
    installed = {one.module for one in registry.find_installed() if not is_users(one.module)}
    brought.modules = find_effective(find_imported(before)) | installed
    brought.variables = variables.compare()
