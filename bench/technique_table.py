"""The page docs/techniques.md, from the registry: `python -m bench.technique_table`."""

from __future__ import annotations

import inspect
import sys

from bench import registry
from bench.registry import Entry
from bench.spec import REQUIRED, Parameter

HEAD = """# Techniques

Made from the registry by `python -m bench.technique_table > docs/techniques.md`; a test compares.
Steps of a pipeline (`prune-channels(0.5) + affine(4)`) go by stage: recipe, compression, execution.
`realization` says what a technique is when it runs: `simulated` (the same kernels, masked weights),
`packed` (smaller in storage, unpacked for every call), `executed` (smaller shapes, other kernels).

| technique | stage | realization | needs | devices | |
|---|---|---|---|---|---|
"""


def render() -> str:
    """Return the page: a table of all techniques, then each with its parameters and source."""
    registry.load_built_ins()
    entries = registry.entries("technique")
    rows = "".join(f"{_row(entry)}\n" for entry in entries)
    return HEAD + rows + "".join(_section(entry) for entry in entries)


def _row(entry: Entry) -> str:
    needs, devices = ", ".join(entry.needs) or "–", ", ".join(entry.devices) or "all"
    name, realization = f"[`{entry.name}`](#{entry.name})", entry.realization or "–"
    cells = [name, entry.stage, realization, needs, devices, entry.summary]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _section(entry: Entry) -> str:
    call = ", ".join(_signature(parameter) for parameter in entry.parameters)
    _, _, details = (inspect.getdoc(entry.factory) or "").partition("\n\n")
    shown = f"{entry.name}({call})" if call else entry.name
    text = f"\n## {entry.name}\n\n`{shown}`\n\n{entry.summary}\n"
    return text + (f"\n{details}\n" if details else "")


def _signature(parameter: Parameter) -> str:
    """Return `name: range = default`, the default left out where there is none."""
    limits = "" if str(parameter.range) == "any number" else str(parameter.range)
    allowed = " or ".join(part for part in (limits, *map(repr, parameter.words)) if part)
    text = f"{parameter.name}: {allowed}" if allowed else parameter.name
    return text if parameter.default == REQUIRED else f"{text} = {parameter.default!r}"


if __name__ == "__main__":
    sys.stdout.write(render())
