"""Record: the row that a cell becomes; every column with its unit and direction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from typing import Any, Literal

import pyarrow as pa

from harness.grid import Cell
from harness.stats import Estimate

SCHEMA_VERSION = 2
VERSION_KEY = b"paretogrid.schema_version"
METRICS_KEY = b"paretogrid.metrics"
SLOW_SPEED = 0.9
"""A `machine_speed` below this is worth a word."""

Status = Literal["measured", "partial", "skipped", "failed"]
TIMED: tuple[Status, ...] = ("measured", "partial")
"""What has a latency; a partial cell's heat was interrupted, and its interval is as wide."""
Direction = Literal["lower", "higher", "none"]


@dataclass(frozen=True)
class Metric:
    """A measured quantity: its column, unit, better direction and what people call it."""

    name: str
    unit: str
    direction: Direction
    label: str
    interval: bool = False

    def columns(self) -> tuple[str, ...]:
        """The Parquet columns of this metric: the value and, if it has one, its interval."""
        bounds = (f"{self.name}_low", f"{self.name}_high") if self.interval else ()
        return (self.name, *bounds)


METRICS: tuple[Metric, ...] = (
    Metric("latency_s", "s", "lower", "latency (median)", interval=True),
    Metric("latency_p90_s", "s", "lower", "latency (90th percentile)"),
    Metric("latency_p99_s", "s", "lower", "latency (99th percentile)"),
    Metric("latency_ratio", "1", "lower", "latency relative to baseline", interval=True),
    Metric("latency_ratio_p_value", "1", "none", "p-value of the latency ratio"),
    Metric("latency_ratio_q_value", "1", "none", "the p-value, corrected for the whole grid"),
    Metric("control_latency_s", "s", "none", "latency of the control workload", interval=True),
    Metric("throughput_per_s", "1/s", "higher", "throughput (examples per second)", interval=True),
    Metric("device_latency_s", "s", "lower", "device time (CUDA events)"),
    Metric("cold_start_s", "s", "lower", "from loading to the first output"),
    Metric("host_to_device_s", "s", "lower", "copying the inputs to the device"),
    Metric("device_to_host_s", "s", "lower", "copying the outputs back"),
    Metric("energy_j", "J", "lower", "energy of a call beyond idling", interval=True),
    Metric("peak_memory_bytes", "B", "lower", "peak memory"),
    Metric("load_memory_bytes", "B", "lower", "peak memory while loading"),
    Metric("weight_memory_bytes", "B", "lower", "memory after load"),
    Metric("working_memory_bytes", "B", "lower", "memory of a call beyond the loaded model"),
    Metric("cuda_allocated_bytes", "B", "lower", "CUDA memory allocated (peak)"),
    Metric("cuda_reserved_bytes", "B", "lower", "CUDA memory reserved (peak)"),
    Metric("cuda_process_bytes", "B", "lower", "CUDA memory of the process (NVML)"),
    Metric("params", "1", "lower", "parameters"),
    Metric("nonzero_params", "1", "lower", "parameters that are not zero"),
    Metric("weight_bytes", "B", "lower", "weights as stored"),
    Metric("disk_bytes", "B", "lower", "file size"),
    Metric("macs", "1", "lower", "multiply-accumulates for one example"),
    Metric("bytes_moved", "B", "lower", "bytes that the operators of a call read and write"),
    Metric("arithmetic_intensity", "1/B", "none", "floating-point operations for each byte moved"),
    Metric("fraction_of_roof", "1", "none", "share of the speed the machine could reach"),
    Metric("accuracy", "1", "higher", "accuracy", interval=True),
    Metric("top5_accuracy", "1", "higher", "accuracy of the five best answers"),
    Metric("macro_f1", "1", "higher", "macro F1"),
    Metric("r2", "1", "higher", "R²", interval=True),
    Metric("fidelity", "1", "higher", "fidelity to the baseline's outputs"),
    Metric("agreement", "1", "higher", "same answer as the baseline"),
    Metric("time_to_target_s", "s", "lower", "training time to the target", interval=True),
    Metric("epochs_to_target", "1", "lower", "epochs to the target"),
    Metric("prepare_s", "s", "lower", "time to prepare the variant"),
)
METRIC_NAMES = {column for metric in METRICS for column in metric.columns()}

IDENTITY: tuple[tuple[str, pa.DataType], ...] = (
    ("run_id", pa.string()),
    ("cell_id", pa.string()),
    ("model", pa.string()),
    ("technique", pa.string()),
    ("device", pa.string()),
    ("threads", pa.int64()),
    ("batch", pa.int64()),
    ("runtime", pa.string()),
    ("seed", pa.int64()),
    ("task", pa.string()),
    ("git_commit", pa.string()),
    ("started_at", pa.string()),
    ("status", pa.string()),
    ("failure_kind", pa.string()),
    ("message", pa.string()),
    ("realization", pa.string()),
)
CONDITIONS: tuple[tuple[str, pa.DataType], ...] = (
    ("heat", pa.string()),
    ("together", pa.bool_()),
    ("processes", pa.int64()),
    ("effective_processes", pa.float64()),
    ("process_spread", pa.float64()),
    ("sessions", pa.int64()),
    ("latency_s_within_low", pa.float64()),
    ("latency_s_within_high", pa.float64()),
    ("latency_ratio_within_low", pa.float64()),
    ("latency_ratio_within_high", pa.float64()),
    ("work_spread", pa.float64()),
    ("speed_spread", pa.float64()),
    ("known_sessions", pa.float64()),
    ("known_heats", pa.float64()),
    ("run_spread", pa.float64()),
    ("known_runs", pa.float64()),
    ("reference_share", pa.float64()),
    ("reference_likeness", pa.float64()),
    ("operators", pa.string()),
    ("rounds", pa.int64()),
    ("samples", pa.int64()),
    ("file_cached_share", pa.float64()),
    ("loops", pa.int64()),
    ("call_examples", pa.int64()),
    ("updates_per_epoch", pa.int64()),
    ("tune_quality", pa.list_(pa.float64())),
    ("warm_up_calls", pa.int64()),
    ("headline_blocks", pa.string()),
    ("disturbed_share", pa.float64()),
    ("throttled_by", pa.list_(pa.string())),
    ("oversubscribed", pa.bool_()),
    ("others_processors", pa.float64()),
    ("stolen_share", pa.float64()),
    ("stalled_share", pa.float64()),
    ("machine_speed", pa.float64()),
    ("drift", pa.float64()),
    ("settled", pa.bool_()),
    ("machine_drift", pa.float64()),
    ("bound", pa.string()),
    ("energy_source", pa.string()),
    ("test_examples", pa.int64()),
    ("stopped_by", pa.string()),
    ("timed_s", pa.float64()),
    ("interval_reached", pa.bool_()),
    ("uncounted_ops", pa.list_(pa.string())),
    ("threads_in_effect", pa.int64()),
    ("processors_used", pa.float64()),
    ("affinity_in_effect", pa.list_(pa.int64())),
    ("placement_in_effect", pa.string()),
    ("wait_policy_in_effect", pa.string()),
    ("dtype_in_effect", pa.string()),
    ("autocast_in_effect", pa.string()),
    ("matmul_precision_in_effect", pa.string()),
    ("allocator_in_effect", pa.string()),
    ("denormals_in_effect", pa.string()),
    ("tf32_in_effect", pa.string()),
    ("cuda_allocator_in_effect", pa.string()),
    ("sm_clock_max_hz", pa.float64()),
    ("power_limit_w", pa.float64()),
    ("warnings", pa.list_(pa.string())),
    ("notes", pa.list_(pa.string())),
    ("environment", pa.string()),
)
CONDITION_NAMES = {name for name, _ in CONDITIONS}


@dataclass(frozen=True)
class Record:
    """What a cell ended as. `metrics` and `conditions` hold only known column names."""

    run_id: str
    cell: Cell
    status: Status
    failure_kind: str = ""
    message: str = ""
    task: str = ""
    realization: str = ""
    git_commit: str = ""
    started_at: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = (set(self.metrics) - METRIC_NAMES) | (set(self.conditions) - CONDITION_NAMES)
        if unknown:
            raise ValueError(f"no such column: {', '.join(sorted(unknown))}")

    def measured(self, **values: float | Estimate) -> Record:
        """Return the record with more metrics; an Estimate fills the interval's columns too."""
        added: dict[str, float] = {}
        for name, value in values.items():
            if isinstance(value, Estimate):
                added |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
            else:
                added[name] = value
        return replace(self, metrics={**self.metrics, **added})

    def under(self, **values: Any) -> Record:
        """Return the record with more conditions."""
        return replace(self, conditions={**self.conditions, **values})

    def to_row(self) -> dict[str, Any]:
        """Return the wide row; what was not measured is None."""
        row: dict[str, Any] = dict.fromkeys(schema().names)
        row |= {name: getattr(self, name) for name, _ in IDENTITY if hasattr(self, name)}
        row |= {**self.cell.axes(), "cell_id": self.cell.id}
        known = {**self.metrics, **self.conditions}
        row |= {name: value for name, value in known.items() if not _is_unknown(value)}
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Record:
        """Return the record that a wide row is of."""
        known = {name: value for name, value in row.items() if value is not None}
        cell = Cell(**{axis.name: row[axis.name] for axis in fields(Cell)})
        told = {one.name: known[one.name] for one in fields(cls) if one.name in known}
        metrics = {name: value for name, value in known.items() if name in METRIC_NAMES}
        conditions = {name: value for name, value in known.items() if name in CONDITION_NAMES}
        return cls(**told | {"cell": cell, "metrics": metrics, "conditions": conditions})


def _is_unknown(value: Any) -> bool:
    return isinstance(value, float) and not isfinite(value)


def schema() -> pa.Schema:
    """Return the Parquet schema; version, units and directions are in its metadata."""
    fields = [pa.field(name, kind) for name, kind in IDENTITY]
    fields += [
        pa.field(column, pa.float64(), metadata={"unit": metric.unit})
        for metric in METRICS
        for column in metric.columns()
    ]
    fields += [pa.field(name, kind) for name, kind in CONDITIONS]
    described = {
        metric.name: {
            "unit": metric.unit,
            "direction": metric.direction,
            "label": metric.label,
            "interval": metric.interval,
        }
        for metric in METRICS
    }
    metadata = {VERSION_KEY: str(SCHEMA_VERSION), METRICS_KEY: json.dumps(described)}
    return pa.schema(fields, metadata=metadata)


SAMPLES_SCHEMA = pa.schema(
    [
        ("cell_id", pa.string()),
        ("heat", pa.string()),
        ("session", pa.int32()),
        ("round", pa.int32()),
        ("block", pa.int32()),
        ("position", pa.int32()),
        ("at_s", pa.float64()),
        ("seconds", pa.float64()),
        ("loops", pa.int32()),
        ("disturbed", pa.bool_()),
        ("cause", pa.string()),
        ("lost_s", pa.float64()),
        ("switches", pa.int32()),
        ("others", pa.int32()),
        ("frequency_hz", pa.float64()),
        ("process", pa.int32()),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION)},
)
EXAMPLES_SCHEMA = pa.schema(
    [
        ("cell_id", pa.string()),
        ("example", pa.int32()),
        ("label", pa.int32()),
        ("predicted", pa.int32()),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION)},
)
