"""The grid file: where it is found, how it is read, and what is wrong with it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from math import isnan
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bench.errors import suggest
from harness.errors import UserError
from harness.grid import BASELINE, Axes, Budget, Exclude, Grid, Measure, Prepare, Training
from harness.paths import is_there, read_path

BUILT_IN_GRIDS = Path(__file__).parent.parent / "bench" / "grids"
LONGEST_SHOWN = 60


def read_grid(name: str) -> Grid:
    """Read a grid file, or a built-in grid by its name; raise UserError that says what is wrong."""
    path = find_grid(name)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except IsADirectoryError:
        raise UserError(
            f"{name} is a folder. Give a grid file, such as {Path(name) / 'grid.toml'}."
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name} is not UTF-8 text (byte {error.start}). A grid file is TOML, saved as UTF-8."
        ) from None
    except OSError as error:
        raise UserError(f"Cannot read the grid file {name}: {error.strerror}.") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{name} is not valid TOML: {error}.") from None
    return parse_grid(data, name)


def find_grid(name: str) -> Path:
    """Return the path of a grid file, or of the built-in grid of that name."""
    path = read_path(name)
    if is_there(path) or path.suffix == ".toml" or "/" in name:
        if not is_there(path):
            raise UserError(f"No grid file {name}. {_built_in_hint(path.stem)}")
        return path
    built_in = BUILT_IN_GRIDS / f"{name}.toml"
    if not is_there(built_in, Path.is_file):
        raise UserError(f"No grid file and no built-in grid {name!r}. {_built_in_hint(name)}")
    return built_in


def built_in_grids() -> list[str]:
    """Return the names of the grids that come with the package."""
    return sorted(path.stem for path in BUILT_IN_GRIDS.glob("*.toml"))


def _built_in_hint(name: str) -> str:
    known = built_in_grids()
    return f"Built-in grids are {', '.join(known)}.{suggest(name, known)}"


def parse_grid(data: Mapping[str, Any], where: str) -> Grid:
    """Return the validated grid; raise UserError with the first mistake and its place."""
    try:
        grid = Grid.model_validate(data)
    except ValidationError as error:
        raise UserError(_explain(error, where)) from None
    return grid


def check_exclusions(grid: Grid, where: str) -> None:
    """Raise UserError for an exclusion that leaves out nothing, everything or the baseline."""
    for position, (rule, count) in enumerate(grid.exclusions()):
        if not rule:
            raise UserError(
                f'exclude[{position}] in {where} is empty. Name an axis, as in device = "cuda".'
            )
        if rule.get("technique") == BASELINE:
            raise UserError(
                f"exclude[{position}] in {where} leaves out the baseline, which every ratio needs. "
                "Name another technique, or none to leave out whole heats."
            )
        if count == 0:
            named = ", ".join(f"{axis} = {value!r}" for axis, value in rule.items())
            raise UserError(
                f"exclude[{position}] in {where} matches no cell of the grid: {named}. "
                "Name values that the grid has, or leave the exclusion out."
            )
    if not grid.expand():
        raise UserError(
            f"The exclusions in {where} leave no cell to measure. Leave one of them out."
        )


def _explain(error: ValidationError, where: str) -> str:
    errors = error.errors()  # a name that is spelled wrongly is also missing
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    place = _format_place(first["loc"])
    example = _example(first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1])
        key = str(first["loc"][-1])
        return f"Unknown key {place} in {where}.{suggest(key, known)} Keys are {', '.join(known)}."
    if first["type"] == "missing":
        return f"{place} is missing in {where}. {example}"
    if first["type"] in ("too_short", "string_too_short"):
        return f"{place} in {where} is empty; it needs a value. {example}"
    if first["type"] == "value_error":
        head, tail = first["ctx"]["error"].args
        return f"{head} in {where} ({place.removeprefix('grid.')}).{tail}"
    limits = first.get("ctx", {})
    wanted = WANTED.get(first["type"], first["msg"]).format(**limits)
    value, expected = first["input"], str(limits.get("expected", ""))
    if "than" in first["type"] and isnan(value):
        wanted = f"a number, {wanted}"
    hint = suggest(value, re.findall(r"'(.*?)'", expected)) if isinstance(value, str) else ""
    return f"{place} in {where} must be {wanted}, got {_show(value)}.{hint} {example}"


WANTED = {
    "tuple_type": "a list",
    "model_type": "a table",
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "literal_error": "{expected}",
    "greater_than": "more than {gt:,.9g}",
    "greater_than_equal": "{ge:,.9g} or more",
    "less_than": "less than {lt:,.9g}",
    "less_than_equal": "{le:,.9g} or less",
}
"""What a value must be, by the validator's name of the mistake."""


def _show(value: Any) -> str:
    """Return a wrong value as the file has it; what is long is only named."""
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _format_place(location: Iterable[int | str]) -> str:
    text = ""
    for part in location:
        key = part if re.fullmatch(r"[\w-]+", str(part)) else repr(part)
        text += f"[{part}]" if isinstance(part, int) else f".{key}" if text else str(key)
    return text


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    tables: dict[str, type[BaseModel]] = {
        "grid": Axes, "exclude": Exclude, "budget": Budget, "measure": Measure,
        "training": Training, "prepare": Prepare,
    }  # fmt: skip
    table = tables[str(location[0])] if location else Grid
    return list(table.model_fields)


EXAMPLES = {
    "grid": '[grid] with models = ["mnist1d-cnn"]',
    "grid.models": 'models = ["mnist1d-cnn"]',
    "grid.techniques": 'techniques = ["baseline", "prune-channels(0.5)"]',
    "grid.devices": 'devices = ["cpu", "cuda"]',
    "grid.threads": "threads = [1, 2]",
    "grid.batch": "batch = [1, 64]",
    "grid.runtimes": 'runtimes = ["eager"]',
    "grid.seeds": "seeds = [0]",
    "grid.plugins": 'plugins = ["my_plugin.py"]',
    "exclude": '[[exclude]] with device = "cuda"',
    "exclude.model": 'model = "mnist1d-cnn"',
    "exclude.technique": 'technique = "int8-dynamic"',
    "exclude.device": 'device = "cuda"',
    "exclude.threads": "threads = 2",
    "exclude.batch": "batch = 64",
    "exclude.runtime": 'runtime = "eager"',
    "exclude.seed": "seed = 0",
    "budget": "[budget] with relative_ci = 0.01",
    "budget.stop": 'stop = "decision"',
    "budget.smallest_effect": "smallest_effect = 0.01",
    "budget.relative_ci": "relative_ci = 0.01",
    "budget.max_seconds_per_cell": "max_seconds_per_cell = 20",
    "budget.max_seconds": "max_seconds = 600",
    "budget.timeout_s": "timeout_s = 300",
    "budget.prepare_timeout_s": "prepare_timeout_s = 3600",
    "budget.max_memory_bytes": "max_memory_bytes = 4_000_000_000",
    "budget.max_heat_memory_bytes": "max_heat_memory_bytes = 16_000_000_000",
    "task": 'task = "training" before the first table',
    "training": "[training] with target = 0.9",
    "training.target": "target = 0.9",
    "prepare": "[prepare] with threads = 2",
    "prepare.device": 'device = "cuda"',
    "prepare.threads": "threads = 2",
    "measure": "[measure] with pin = false",
    "measure.wait_policy": 'wait_policy = "passive"',
    "measure.pin": "pin = false",
    "measure.block_s": "block_s = 0.01",
    "measure.least_rounds": "least_rounds = 10",
    "measure.processes": "processes = 2",
    "measure.sessions": "sessions = 3",
    "measure.flush_cache": "flush_cache = true",
}


def _example(location: Iterable[int | str]) -> str:
    """Return what would work there: the example of the key, or of its table."""
    keys = [part for part in location if isinstance(part, str)]
    example = EXAMPLES.get(".".join(keys), EXAMPLES.get(keys[0], ""))
    return f"For example: {example}"
