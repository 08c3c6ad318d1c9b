"""Grid and Cell: the axes, their expansion, exclusions, and the identity of a cell."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bench.errors import suggest

BASELINE = "baseline"
ANY_TEXT = "*"
RUNTIMES = ("eager",)
TRAINING = "training"
"""The runtime of a cell that is a training step: what `task = "training"` measures."""


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
        """Twelve hexadecimal digits that stand for the axes."""
        return identify(self.axes())

    @property
    def place(self) -> tuple[str, str, int, int, int]:
        """What a cell shares with its baseline."""
        return (self.model, self.device, self.seed, self.threads, self.batch)

    def __str__(self) -> str:
        return (
            f"{self.id} ({self.model}, {self.technique}, {self.device}, "
            f"threads {self.threads}, batch {self.batch})"
        )


def identify(axes: Mapping[str, str | int | None]) -> str:
    """Return the first twelve hexadecimal digits of the SHA-256 of the axes' canonical JSON."""
    text = json.dumps(axes, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Strict(BaseModel):
    """Part of a grid file: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _known_device(value: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", value):
        hint = suggest("cuda" if value.lower().startswith("gpu") else value, ("cpu", "cuda"))
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
LARGEST = 2**63 - 1
"""The largest whole number that a column of Parquet holds."""
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, le=LARGEST)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1, strict=False)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1, strict=False)]
LONGEST_S = 1_000_000.0
Seconds = Annotated[float, Field(gt=0, le=LONGEST_S)]


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
    """One `[[exclude]]` table: a combination of axes that is not measured.

    A `*` in the name of a model or technique stands for any text.
    """

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
        """Tell whether the cell has every named value; its baseline is matched by name only."""
        axes = cell.axes()
        return all(_matches(axes[name], value) for name, value in self.rule().items())


def _matches(value: str | int, wanted: str | int) -> bool:
    if not is_pattern(wanted):
        return value == wanted
    words = ".*".join(map(re.escape, str(wanted).split(ANY_TEXT)))
    return value != BASELINE and re.fullmatch(words, str(value)) is not None


def is_pattern(value: str | int) -> bool:
    """Tell whether a name in an exclusion stands for several."""
    return isinstance(value, str) and ANY_TEXT in value


class Budget(Strict):
    """The `[budget]` table: when a cell is good enough, and when it is given up."""

    stop: Literal["decision", "interval", "budget"] = "decision"
    smallest_effect: Annotated[float, Field(gt=0, lt=1)] = 0.01
    relative_ci: Annotated[float, Field(gt=0, lt=1)] = 0.01
    max_seconds_per_cell: Seconds = 20.0
    max_seconds: Seconds | None = None
    timeout_s: Seconds = 300.0
    prepare_timeout_s: Seconds = 3600.0
    max_memory_bytes: Annotated[int, Field(gt=0)] | None = None
    max_heat_memory_bytes: Annotated[int, Field(gt=0)] | None = None


class Measure(Strict):
    """The `[measure]` table: how the instrument is set."""

    wait_policy: Literal["active", "passive"] = "active"
    pin: bool = True
    block_s: Annotated[float, Field(gt=0, le=10)] = 0.01
    least_rounds: Annotated[int, Field(ge=6)] = 10
    processes: Annotated[int, Field(ge=1, le=8)] | None = None
    sessions: Annotated[int, Field(ge=1, le=20)] = 3
    flush_cache: bool = False


class Prepare(Strict):
    """The `[prepare]` table: with how many threads, and where models are trained.

    One thread trains small models fastest, and makes training the same on every machine.
    """

    device: Device = "cpu"
    threads: Count = 1


class Training(Strict):
    """The `[training]` table: when a training has arrived."""

    target: Annotated[float, Field(gt=0, le=1)] | None = None


class Grid(Strict):
    """What is measured, and within which budget."""

    grid: Axes
    task: Literal["inference", "training"] = "inference"
    training: Training = Training()
    exclude: Annotated[tuple[Exclude, ...], Field(strict=False)] = ()
    budget: Budget = Budget()
    prepare: Prepare = Prepare()
    measure: Measure = Measure()

    def product(self) -> tuple[Cell, ...]:
        """Return every combination of the axes, the baseline first, excluded ones too."""
        axes = self.grid
        techniques = dict.fromkeys((BASELINE, *axes.techniques))
        runtimes = (TRAINING,) if self.task == TRAINING else axes.runtimes
        seen = dict.fromkeys(
            Cell(model, technique, device, threads, batch, runtime, seed)
            for model, device, seed, threads, batch, technique, runtime in itertools.product(
                axes.models, axes.devices, axes.seeds, axes.threads, axes.batch, techniques,
                runtimes,
            )
        )  # fmt: skip
        return tuple(seen)

    def used_devices(self) -> tuple[str, ...]:
        """Return the devices of the cells, and the card on which models are trained."""
        card = () if self.prepare.device == "cpu" else (self.prepare.device,)
        return tuple(dict.fromkeys((*self.grid.devices, *card)))

    def expand(self) -> tuple[Cell, ...]:
        """Return the cells to measure, heats together, each heat led by its baseline."""
        return tuple(
            cell for cell in self.product() if not any(rule.matches(cell) for rule in self.exclude)
        )

    def exclusions(self) -> list[tuple[dict[str, str | int], int]]:
        """Return each exclusion with the number of cells that it leaves out."""
        cells = self.product()
        return [(rule.rule(), sum(map(rule.matches, cells))) for rule in self.exclude]
