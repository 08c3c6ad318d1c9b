"""The machine and the models: what doctor and inspect print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from harness.console.streams import out
from harness.layer import Layer
from harness.measure.roofline import Roofs
from harness.report import text
from harness.sweep.doctor import Examination
from harness.sweep.self_test import SelfTest
from harness.wording import counted


def print_examination(found: Examination) -> None:
    """Print machine, roofs, what can be told apart, and what to mend."""
    machine = found.machine
    memory = text.format_value(machine["memory_bytes"], "B")
    usable = counted(machine["processors"], "usable processor")
    out.print(f"{machine['cpu_model']}: {counted(machine['cores'], 'core')}, {usable}, {memory}, "
              f"{machine['system']}")  # fmt: skip
    out.print(f"Low precision: {', '.join(machine['cpu_flags']) or 'no instructions'}. "
              f"Fingerprint {found.fingerprint}.")  # fmt: skip
    for device, facts in found.devices.items():
        out.print(f"{device}: {facts if isinstance(facts, str) else describe_device(facts)}\n")
    out.print(_roofs_table(found.roofs))
    out.print(_self_tests_table(found.tests))
    for advice in found.advice or ("Nothing to mend.",):
        out.print(f"* {advice}")


def describe_device(facts: Mapping[str, Any]) -> str:
    """Return what is known of a device in a line; a mode that costs something is among it."""
    if "gpu_name" not in facts:
        return "ready"
    named = {
        "mig_instance": "MIG instance {}",
        "driver": "driver {}",
        "compute_capability": "compute capability {}",
        "compute_mode": "compute mode {}",
        "persistence_mode": "persistence mode {}",
    }
    known = [words.format(facts[name]) for name, words in named.items() if facts.get(name)]
    units = {"gpu_memory_bytes": ("memory", "B"), "sm_clock_max_hz": ("clock up to", "Hz"),
             "power_limit_w": ("power limit", "W")}  # fmt: skip
    known += [
        f"{label} {text.format_value(facts[name], unit)}"
        for name, (label, unit) in units.items()
        if facts.get(name)
    ]
    return ", ".join([facts["gpu_name"], *known])


def _roofs_table(roofs: Mapping[str, Roofs]) -> Table:
    table = Table(title="What it can reach", title_justify="left", box=None)
    table.add_column("device")
    types = list(dict.fromkeys(name for one in roofs.values() for name in one.flops_per_s))
    for heading in (*types, "copy in cache", "copy in memory", "an operator"):
        table.add_column(heading, justify="right")
    for name, one in roofs.items():
        rates = [one.flops_per_s.get(kind) for kind in types]
        copies = (one.bytes_per_s[0][1], one.bytes_per_s[-1][1])
        table.add_row(
            name,
            *(text.format_value(rate, "FLOP/s") for rate in rates),
            *(text.format_value(rate, "B/s") for rate in copies),
            text.format_value(one.dispatch_s, "s"),
        )
    return table


def _self_tests_table(tests: Sequence[SelfTest]) -> Table:
    table = Table(title="The same work compared with itself", title_justify="left", box=None)
    for heading in ("device", "threads", "false alarms (p < 0.01)", "noise of a round",
                    "smallest difference seen (p < 0.05)", "of unlike cells, in 3 sessions",
                    "disturbed blocks", "stolen", "machine's speed"):  # fmt: skip
        table.add_column(heading, justify="right")
    for test in tests:
        table.add_row(
            test.device,
            str(test.threads),
            f"{test.false_flags} of {test.comparisons}",
            f"{test.noise:.1%}",
            f"{test.smallest_difference:.1%} in {counted(test.rounds, 'round')}",
            f"{test.unlike_difference:.1%}",
            f"{sum(test.disturbed.values()):.0%}",
            f"{test.stolen_share:.1%}",
            f"{test.machine_speed:.0%}",
        )
    return table


def print_layers(layers: Sequence[Layer]) -> None:
    """Print a model's layers as a table with their sums."""
    table = Table(box=None, show_footer=True)
    params = text.format_count(sum(layer.params for layer in layers))
    stored = text.format_value(sum(layer.weight_bytes for layer in layers), "B")
    known = [layer.macs for layer in layers if layer.macs is not None]
    macs = text.format_count(sum(known)) if len(known) == len(layers) else "–"
    footers = ("all", "", "", params, macs, stored, "", "")
    headings = ("layer", "kind", "output", "parameters", "MACs", "stored", "zero", "bits")
    for heading, footer in zip(headings, footers, strict=True):
        justify: Any = "left" if heading in ("layer", "kind", "output") else "right"
        table.add_column(heading, footer, justify=justify, overflow="fold")
    for layer in layers:
        table.add_row(
            layer.name,
            layer.kind,
            "×".join(map(str, layer.shape)),
            text.format_count(layer.params),
            "–" if layer.macs is None else text.format_count(layer.macs),
            text.format_value(layer.weight_bytes, "B") if layer.weight_bytes else "–",
            f"{layer.sparsity:.1%}" if layer.params else "–",
            text.format_value(layer.bits, "") if layer.params else "–",
        )
    out.print(table)


def describe_entry(entry: dict[str, Any]) -> dict[str, str]:
    """Return a registered thing as a row: its name with its parameters, and what it does."""
    parameters = ", ".join(
        p["name"] if p["default"] == "<required>" else f"{p['name']}={p['default']!r}"
        for p in entry["parameters"]
    )
    row = {"name": f"{entry['name']}({parameters})" if parameters else entry["name"]}
    if entry["kind"] == "technique":
        row |= {
            "stage": entry["stage"],
            "realization": entry["realization"] or "–",
            "needs": ", ".join(entry["needs"]) or "–",
        }
    return row | {"what it does": entry["summary"]}
