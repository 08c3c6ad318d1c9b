"""Grid and Cell: the axes, their expansion, exclusions, and the identity of a cell."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from bench.errors import suggest
from harness.errors import UserError

BASELINE = "baseline"
BUILT_IN_GRIDS = Path(__file__).parent.parent / "bench" / "grids"
RUNTIMES = ("eager",)
LONGEST_SHOWN = 60


@dataclass(frozen=True, order=True)
class Cell:
    """One point of the grid: names and parameters only."""

    model: str
    technique: str
    device: str
    threads: int
    batch: int
    runtime: str
    seed: int

    def axes(self) -> dict[str, str | int]:
        """Return the axes by name."""
        return asdict(self)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits: SHA-256 of the cell's canonical JSON."""
        text = json.dumps(self.axes(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def place(self) -> tuple[str, str, int, int, int]:
        """What cells must share to be compared in one heat."""
        return (self.model, self.device, self.seed, self.threads, self.batch)

    def __str__(self) -> str:
        return (
            f"{self.id} ({self.model}, {self.technique}, {self.device}, "
            f"threads {self.threads}, batch {self.batch})"
        )


class Strict(BaseModel):
    """Part of a grid file: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _known_device(value: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", value):
        hint = suggest(value, ("cpu", "cuda"))
        raise ValueError(f"Unknown device {value!r}", f"{hint} Devices are cpu, cuda, cuda:1...")
    return value


def _known_runtime(value: str) -> str:
    if value not in RUNTIMES:
        hint = suggest(value, RUNTIMES)
        raise ValueError(f"Unknown runtime {value!r}", f"{hint} Known: {', '.join(RUNTIMES)}.")
    return value


Name = Annotated[str, Field(min_length=1)]
Device = Annotated[str, AfterValidator(_known_device)]
Runtime = Annotated[str, AfterValidator(_known_runtime)]
Names = Annotated[tuple[Name, ...], Field(min_length=1, strict=False)]
Devices = Annotated[tuple[Device, ...], Field(min_length=1, strict=False)]
Runtimes = Annotated[tuple[Runtime, ...], Field(min_length=1, strict=False)]
Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, strict=False)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, strict=False)]
Seconds = Annotated[float, Field(gt=0, le=1_000_000)]


class Axes(Strict):
    """The `[grid]` table."""

    models: Names
    techniques: Names = (BASELINE,)
    devices: Devices = ("cpu",)
    threads: Counts = (1,)
    batch: Counts = (1,)
    runtimes: Runtimes = ("eager",)
    seeds: Seeds = (0,)
    plugins: Annotated[tuple[str, ...], Field(strict=False)] = ()


class Exclude(Strict):
    """One `[[exclude]]` table: a combination of axes that is not measured."""

    model: str | None = None
    technique: str | None = None
    device: str | None = None
    threads: int | None = None
    batch: int | None = None
    runtime: str | None = None
    seed: int | None = None

    def rule(self) -> dict[str, str | int]:
        """Return the axes that this exclusion names."""
        return self.model_dump(exclude_none=True)

    def matches(self, cell: Cell) -> bool:
        """Tell whether the cell has every named value."""
        axes = cell.axes()
        return all(axes[name] == value for name, value in self.rule().items())


class Budget(Strict):
    """The `[budget]` table: when a cell is good enough, and when it is given up."""

    relative_ci: Annotated[float, Field(gt=0, lt=1)] = 0.01
    max_seconds_per_cell: Seconds = 20.0
    timeout_s: Seconds = 300.0
    prepare_timeout_s: Seconds = 3600.0
    max_memory_bytes: Annotated[int, Field(gt=0)] | None = None


class Measure(Strict):
    """The `[measure]` table: how the instrument is set."""

    wait_policy: Literal["active", "passive"] = "active"
    pin: bool = True
    block_s: Annotated[float, Field(gt=0, le=10)] = 0.01
    least_rounds: Annotated[int, Field(ge=5)] = 10


class Grid(Strict):
    """What is measured, and within which budget."""

    grid: Axes
    exclude: Annotated[tuple[Exclude, ...], Field(strict=False)] = ()
    budget: Budget = Budget()
    measure: Measure = Measure()

    def product(self) -> tuple[Cell, ...]:
        """Return every combination of the axes, the baseline first, excluded ones too."""
        axes = self.grid
        techniques = dict.fromkeys((BASELINE, *axes.techniques))
        seen = dict.fromkeys(
            Cell(model, technique, device, threads, batch, runtime, seed)
            for model, device, seed, threads, batch, technique, runtime in itertools.product(
                axes.models, axes.devices, axes.seeds, axes.threads, axes.batch, techniques,
                axes.runtimes,
            )
        )  # fmt: skip
        return tuple(seen)

    def expand(self) -> tuple[Cell, ...]:
        """Return the cells to measure, heats together, each heat led by its baseline."""
        return tuple(
            cell for cell in self.product() if not any(rule.matches(cell) for rule in self.exclude)
        )

    def exclusions(self) -> list[tuple[dict[str, str | int], int]]:
        """Return each exclusion with the number of cells that it leaves out."""
        cells = self.product()
        return [(rule.rule(), sum(map(rule.matches, cells))) for rule in self.exclude]


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
    path = Path(name)
    if path.exists() or path.suffix == ".toml" or "/" in name:
        if not path.exists():
            raise UserError(f"No grid file {name}. {_built_in_hint(path.stem)}")
        return path
    built_in = BUILT_IN_GRIDS / f"{name}.toml"
    if not built_in.is_file():
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
    first = error.errors()[0]
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
    "exclude.threads": "threads = 2",
    "exclude.batch": "batch = 64",
    "exclude.seed": "seed = 0",
    "budget": "[budget] with relative_ci = 0.01",
    "budget.relative_ci": "relative_ci = 0.01",
    "budget.max_seconds_per_cell": "max_seconds_per_cell = 20",
    "budget.timeout_s": "timeout_s = 300",
    "budget.prepare_timeout_s": "prepare_timeout_s = 3600",
    "budget.max_memory_bytes": "max_memory_bytes = 4_000_000_000",
    "measure": "[measure] with pin = false",
    "measure.wait_policy": 'wait_policy = "passive"',
    "measure.pin": "pin = false",
    "measure.block_s": "block_s = 0.01",
    "measure.least_rounds": "least_rounds = 10",
}


def _example(location: Iterable[int | str]) -> str:
    """Return what would work there: the example of the key, or of its table."""
    keys = [part for part in location if isinstance(part, str)]
    example = EXAMPLES.get(".".join(keys), EXAMPLES.get(keys[0], ""))
    return f"For example: {example}"
