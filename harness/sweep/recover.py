"""Recover: results of what a run had timed when it was killed, without measuring further.

Beside a heat's journal stands what was known of its cells when it began. Neither needs the machine.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from harness.durable import write_durably
from harness.errors import UserError
from harness.examples import read_right
from harness.grid import Cell
from harness.known import WITHIN, Between, Known
from harness.measure.roofline import Roofs, Traffic
from harness.record import Record
from harness.store import Run, control_id
from harness.sweep.conclude import conclude_again, conclude_kept
from harness.sweep.heat import CONTROL, INTERRUPTION, Member, never
from harness.sweep.journal import FOLDER, Journal, cannot_write, find_files, number_of, restore
from harness.sweep.outcomes import Outcomes
from harness.sweep.plan import Plan
from harness.sweep.reach import place_of
from harness.sweep.seat import Seat, TimedHeat
from harness.sweep.tables import samples_table

ENDING = ".seats"
"""Of the note beside each file of a journal."""


def note_seats(
    journal: Journal, place: str, seats: Sequence[Seat], processes: int, processors: int,
    between: Between,
) -> None:  # fmt: skip
    """Note beside a journal what is known of those who are about to be timed."""
    noted = [
        {"cell": seat.cell.axes(), "variant": seat.variant, "kept": seat.kept,
         "record": _plain(seat.record), "traffic": seat.traffic and asdict(seat.traffic)}
        for seat in seats if seat.member
    ]  # fmt: skip
    told = {"place": place, "heat": journal.name, "processes": processes,
            "processors": processors, "between": asdict(between), "seats": noted}  # fmt: skip
    text = json.dumps(told, default=_number)
    note = journal.path.with_suffix(ENDING)
    try:
        write_durably(note, lambda path: path.write_text(text))
    except OSError as error:  # as where the journal itself cannot be written
        raise cannot_write(note, error) from None


def find_notes(run: Run) -> list[Path]:
    """Return the notes of heats that were begun and have not ended."""
    return sorted(run.folder.glob(f"{FOLDER}/*/*{ENDING}"))


def recover(run: Run) -> int:
    """Make partial results of the heats that a run has left; return of how many cells.

    None while the run is being measured, or if it is another user's. Raises UserError where they
    cannot be written.
    """
    if not find_notes(run):
        return 0
    with ExitStack() as held:
        try:
            held.enter_context(run.lock())
        except UserError:
            return 0
        found, facts = recover_heats(run), run.facts()
        killed = facts.get("state") == "running"  # it may have been between two sessions
        if found or killed:
            run.write_facts({**facts, "state": "interrupted"})
    return len(Outcomes(run).partial if killed else found)


def recover_heats(run: Run) -> dict[str, str]:
    """Make partial results of the heats that a run has left, which is ours; return cells' heats."""
    found: dict[str, str] = {}
    for note in _latest(find_notes(run)):
        found |= _recover_heat(run, note)
    return found


@dataclass(frozen=True)
class Begun:
    """What was timed of a heat before: in how many sessions each cell at least; who has left it."""

    sessions: int = 0
    resumed: bool = False
    departed: Sequence[Seat] = ()


def find_begun(
    run: Run, journal: Path, place: str, seats: Sequence[Seat], others: Collection[str]
) -> Begun:
    """Return what was timed of the heat that seats go on with; nothing where they begin one.

    place, others: as the journal has them.
    """
    notes = find_notes_of(journal, place)
    if not notes:
        return Begun()
    members = [Member(seat.cell.id, never) for seat in seats]
    variants = {seat.cell.id: seat.variant for seat in seats}
    heat = restore(find_files(journal, place), "", members, variants, others).name
    timed = [
        len({block.session for block in member.blocks})
        for seat, member in zip(seats, members, strict=True) if seat.kept
    ]  # fmt: skip
    sessions = min(timed, default=0)
    told = [one for note in notes if (one := json.loads(note.read_text()))["heat"] == heat]
    if not told:
        return Begun(sessions, any(member.blocks for member in members))
    rows = _measured_rows(run, heat)
    there = (_seat(one, run.run_id) for one in told[-1]["seats"])
    left = [seat for seat in there if seat.cell.id in rows and seat.cell.id not in variants]
    right = read_right(run)
    for seat in left:
        _leave(seat, rows[seat.cell.id])
        seat.right = right.get(seat.cell.id)
    return Begun(sessions, True, left)


def find_notes_of(journal: Path, place: str) -> list[Path]:
    """Return the notes of a place in a machine's journal, in the order of its sessions."""
    files = (path.with_suffix(ENDING) for path in find_files(journal, place))
    return [note for note in files if note.exists()]


def _measured_rows(run: Run, heat: str) -> dict[str, dict[str, Any]]:
    """Return the rows of the cells that have their last record of a heat, by cell."""
    told = run.read("cells", ("cell_id", "status", "heat"))
    if heat not in set(told["heat"].to_pylist()):
        return {}
    rows = run.read("cells").to_pylist()
    return {row["cell_id"]: row for row in rows
            if row["status"] == "measured" and row["heat"] == heat}  # fmt: skip


def _leave(seat: Seat, row: Mapping[str, Any]) -> None:
    """Let a seat have left with the record that its row is of."""
    seat.record, seat.kept = Record.from_row(row), False
    seat.judged = seat.concluded = True


def _recover_heat(run: Run, note: Path) -> dict[str, str]:
    told, facts = json.loads(note.read_text()), run.facts()
    seats = [_seat(one, run.run_id) for one in told["seats"]]
    control = Member(CONTROL, never, follows=True, stopped_by=INTERRUPTION)
    members = [seat.member for seat in seats if seat.member]
    variants = {seat.cell.id: seat.variant for seat in seats}
    known = find_files(note.parent, told["place"])
    restored = restore(known, told["heat"], [*members, control], variants)
    rows = _measured_rows(run, restored.name)
    departed = [seat for seat in seats if _adds_nothing(seat, rows.get(seat.cell.id))]
    for seat in departed:
        _leave(seat, rows[seat.cell.id])
    took_s = max((block.at_s for member in members for block in member.blocks), default=0.0)
    timed = TimedHeat(
        restored.name, seats, control, told["processes"], took_s, float("nan"),
        _between(told), interrupted=True,
    )  # fmt: skip
    outcomes = Outcomes(run)
    budget = Plan.from_json(facts["plan"]).grid.budget
    processors = told.get("processors", facts["machine"]["processors"])
    earlier = outcomes.of_heat(timed.name)
    added = {}
    for seat, record, _ in conclude_kept(timed, budget, _roofs(facts, seats), processors, earlier):
        if _is_news(record, timed.name, outcomes.rows.get(seat.cell.id)):
            run.add(record, samples_table(seat.cell.id, timed.name, seat.member))
            added[seat.cell.id] = record.status
    if added:
        for _, record in conclude_again(timed, departed, _roofs(facts, seats)):
            run.add_row(record)
        name = control_id(timed.name)
        run.add_control(name, samples_table(name, timed.name, control))
    return {cell: timed.name for cell, status in added.items() if status == "partial"}


def _latest(notes: Iterable[Path]) -> list[Path]:
    """The last note of each place and machine: it is of whom the run had measured last."""
    latest: dict[tuple[Path, str], Path] = {}
    for note in sorted(notes, key=number_of):
        latest[note.parent, note.name.split(".")[0]] = note
    return sorted(latest.values(), key=_begun_at)


def _begun_at(note: Path) -> str:
    """When the attempt began that a note is of."""
    return min((one["record"]["started_at"] for one in json.loads(note.read_text())["seats"]),
               default="")  # fmt: skip


def _roofs(facts: Mapping[str, Any], seats: Sequence[Seat]) -> Roofs | None:
    """What the run had measured of the place where these cells were timed."""
    if not seats:
        return None
    place = place_of(seats[0].cell.device, seats[0].cell.threads)
    known = facts.get("roofs", {}).get(place)
    return Roofs.from_json(known) if known else None


def _adds_nothing(seat: Seat, row: Mapping[str, Any] | None) -> bool:
    """Tell whether a seat's last record is of all its blocks; not if it was timed on for others."""
    blocks = seat.member.blocks if seat.member else []
    samples = sum(len(block.samples.seconds) for block in blocks)
    return row is not None and 0 < samples <= (row["samples"] or 0)


def _is_news(record: Record, heat: str, row: dict[str, Any] | None) -> bool:
    """Tell whether a cell's blocks say more than the row that it has.

    A row that is no older is how this very attempt ended, or a later one in another heat, as on
    another machine; this one may have ended in part, and a run that went on with it was killed.
    """
    samples: int = record.conditions.get("samples", 0)
    if row is None or not samples:
        return samples > 0
    here = row["heat"] == heat
    goes_on = row["status"] == "partial" and here
    ended = row["started_at"] >= record.started_at and not goes_on
    return not ended and samples > (row["samples"] or 0 if here else 0)


def _seat(told: dict[str, Any], run_id: str) -> Seat:
    cell = Cell(**told["cell"])
    record = Record(**told["record"] | {"run_id": run_id, "cell": cell})
    member = Member(cell.id, never, family=cell.model, stopped_by=INTERRUPTION)
    traffic = Traffic(**told["traffic"]) if told.get("traffic") else None
    return Seat(cell, told["variant"], record, told["kept"], member=member, traffic=traffic)


def _between(told: Mapping[str, Any]) -> Between:
    """What was known of sessions; of notes from before they were timed, nothing."""
    known = told.get("between")
    return Between(**{name: Known(**one) for name, one in known.items()}) if known else WITHIN


def _plain(record: Record) -> dict[str, Any]:
    told = {one.name: getattr(record, one.name) for one in fields(record)}
    del told["cell"], told["run_id"]
    return told | {"metrics": dict(record.metrics), "conditions": dict(record.conditions)}


def _number(value: Any) -> Any:
    """Return a number of NumPy's as Python's."""
    return value.item()
