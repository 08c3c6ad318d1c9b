"""Journal: the blocks of a heat on disk as they are timed, so that no end of a run loses them.

An Arrow stream with a row a block, a new file each time that the heat is taken up. A stream that
breaks off, as after a kill, is read as far as it goes.
"""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from harness.errors import UserError
from harness.measure.disturbance import Disturbance
from harness.measure.timing import Block
from harness.sweep.heat import Member, TimedBlock

FOLDER = "journal"
KEEP_EVERY_S = 1.0
"""A kill loses at most so much timing; a disk that syncs slowly keeps the cells waiting less."""
BLOCK_FIELDS: dict[str, pa.DataType] = {
    "member": pa.string(),
    "variant": pa.string(),
    "spent_s": pa.float64(),
    "round": pa.int32(),
    "block": pa.int32(),
    "position": pa.int32(),
    "at_s": pa.float64(),
    "seconds": pa.list_(pa.float64()),
    "loops": pa.int32(),
    "process": pa.int32(),
}
DISTURBANCE_FIELDS: dict[str, pa.DataType] = {
    "cause": pa.string(),
    "wall_s": pa.float64(),
    "lost_s": pa.float64(),
    "switches": pa.int32(),
    "others": pa.int32(),
    "others_s": pa.float64(),
    "stolen_s": pa.float64(),
    "frequency_hz": pa.float64(),
    "throttled_by": pa.list_(pa.string()),
}
CHECK = "crc32"
"""Of all else in a row: a disk that lost power may hold zeros that read like a block."""
CONTENT = pa.schema([*BLOCK_FIELDS.items(), *DISTURBANCE_FIELDS.items()])
SCHEMA = CONTENT.append(pa.field(CHECK, pa.int64()))
NAME_KEY = b"paretogrid.heat"


class Journal:
    """The journal of one heat, which goes on with the heat at its place that timed most of it.

    Opened, it gives the members what they have timed in that heat already, if it was of the same
    variant; what `left` holds is other's or of what has changed, and `changed` names the members
    that have. `holds` names all whose blocks are in it. `name` is the heat's, as it was when it was
    begun; `session` the number of its file. `others`: heats that go on apart from this one; None
    where it goes on with the heat of its name and no other. Use as a context manager.
    """

    def __init__(
        self, folder: Path, place: str, name: str, members: Sequence[Member],
        variants: Mapping[str, str], clock: Callable[[], float] = time.monotonic,
        others: Collection[str] | None = (),
    ) -> None:  # fmt: skip
        known = find_files(folder, place)
        self._members = members
        self._variants = variants
        self._clock = clock
        restored = restore(known, name, members, variants, others)
        self.name, self.left, self._files = restored.name, restored.left, restored.files
        self.changed, self._held = restored.changed, restored.held
        self._kept = {member.name: len(member.blocks) for member in members}
        self._torn = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.session = number_of(known[-1]) + 1 if known else 0
            self.path = folder / f"{_key(place)}.{self.session}.arrows"
            self._files.append(self.path)
            self._file = self.path.open("wb")
            self._stream = pa.ipc.new_stream(
                self._file, SCHEMA.with_metadata({NAME_KEY: self.name.encode()})
            )
            self._sync()
        except OSError as error:
            raise cannot_write(folder, error) from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.keep(now=True)
        try:
            self._stream.close()
            self._file.close()
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def keep(self, now: bool = False) -> None:
        """Write what is new, a second after the last time or at once; durable when it returns."""
        if not now and self._clock() - self._kept_s < KEEP_EVERY_S:
            return
        if self._torn:  # what follows half a batch cannot be read
            return
        rows, counts = [], {}
        for member in self._members:
            variant = self._variants.get(member.name, "")  # the control has none
            told = {"variant": variant, "spent_s": member.spent_s}
            fresh = member.blocks[self._kept[member.name] :]
            rows += [{"member": member.name} | told | _row(block) for block in fresh]
            counts[member.name] = self._kept[member.name] + len(fresh)
        try:
            if rows:
                self._stream.write_batch(_checked(pa.RecordBatch.from_pylist(rows, schema=CONTENT)))
            # After it: who is interrupted in between has rows there twice, and not none at all.
            self._kept = counts
            self._sync()
        except OSError as error:
            self._torn = True
            raise cannot_write(self.path, error) from None

    @property
    def holds(self) -> set[str]:
        """The members whose blocks are in it, those of earlier runs too."""
        return self._held | {member.name for member in self._members if member.blocks}

    def remove(self) -> None:
        """Take the journal away, with what stands beside it: what it holds has become results."""
        for path in self._files:
            for one in path.parent.glob(f"{path.stem}.*"):
                one.unlink(missing_ok=True)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._kept_s = self._clock()


@dataclass(frozen=True)
class Restored:
    """What a place's journals hold of some members: their heat, its files, the blocks of others.

    held: all whose blocks they are. changed: members that were timed there, but as another variant.
    """

    name: str
    files: list[Path]
    left: list[TimedBlock]
    held: set[str]
    changed: list[str]


def find_files(folder: Path, place: str) -> list[Path]:
    """Return the files of a place, in the order in which they were written."""
    return sorted(folder.glob(f"{_key(place)}.*.arrows"), key=number_of)


def restore(
    known: Sequence[Path], name: str, members: Sequence[Member], variants: Mapping[str, str],
    others: Collection[str] | None = None,
) -> Restored:  # fmt: skip
    """Give members what they have timed of their variant in the heat of that name.

    With `others` in the heat that has most of it, but in none of these; `name` is the heat's where
    no cell has any.
    """
    wanted = {(member.name, variants.get(member.name, "")): member for member in members}
    heats: dict[str, list[dict[str, Any]]] = {name: []}
    files: dict[str, list[Path]] = {name: []}
    for path in known:
        told = _heat_of(path)
        if told != name if others is None else told in others:
            continue
        heat, rows = _read(path)
        heats.setdefault(heat, []).extend(row | {"session": number_of(path)} for row in rows)
        files.setdefault(heat, []).append(path)

    def theirs(heat: str) -> int:
        cells = [(row["member"], row["variant"]) for row in heats[heat] if row["variant"]]
        return sum(cell in wanted for cell in cells)

    chosen = max(heats, key=theirs)  # the first, which is named, where no cell has any
    if not theirs(chosen):
        wanted = {}  # the control's are beside nobody's
    left = []
    for row in {row["block"]: row for row in heats[chosen]}.values():  # each once
        member = wanted.get((row["member"], row["variant"]))
        if member is None:
            left.append(_block(row))
        else:
            member.blocks.append(_block(row))
            member.spent_s = row["spent_s"]
    timed = {(row["member"], row["variant"]) for rows in heats.values() for row in rows}
    others = {name for name, variant in timed if variant != variants.get(name)}
    names = [member.name for member in members if member.name in variants]
    changed = [name for name in names if name in others and (name, variants[name]) not in timed]
    held = {row["member"] for row in heats[chosen]}
    return Restored(chosen, files[chosen], left, held, changed)


def _key(place: str) -> str:
    return hashlib.sha256(place.encode()).hexdigest()[:16]


def number_of(path: Path) -> int:
    """Return which file of its place this is: the session that it is of."""
    return int(path.name.split(".")[1])


def _heat_of(path: Path) -> str:
    """Return the heat of a stream, which stands at its beginning; nothing of one without any."""
    try:
        with path.open("rb") as file, pa.ipc.open_stream(file) as stream:
            return str((stream.schema.metadata or {})[NAME_KEY].decode())
    except (OSError, pa.ArrowInvalid, KeyError):
        return ""


def _read(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the heat and the blocks of a stream that may break off anywhere, as far as it goes."""
    heat = ""
    rows: list[dict[str, Any]] = []
    try:
        with path.open("rb") as file, pa.ipc.open_stream(file) as stream:
            if stream.schema.equals(SCHEMA):  # not of another version
                heat = (stream.schema.metadata or {})[NAME_KEY].decode()
                for batch in stream:
                    batch.validate(full=True)
                    for row in _rows(batch):
                        if row.pop(CHECK) != _check(row):
                            return heat, rows
                        rows.append(row)
    except (OSError, pa.ArrowInvalid, KeyError):
        pass  # it ends here
    return heat, rows


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows of a batch, samples as arrays: Python's numbers take five times as much."""
    place = batch.schema.get_field_index("seconds")
    samples = batch.column(place)
    rest = batch.drop_columns(["seconds"]).to_pylist()
    return [row | {"seconds": samples[n].values.to_numpy()} for n, row in enumerate(rest)]


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with a checksum for each row, of its values as they will be read."""
    checks = pa.array([_check(row) for row in _rows(batch)], pa.int64())
    return batch.append_column(pa.field(CHECK, pa.int64()), checks)


def _check(row: dict[str, Any]) -> int:
    rest = [value for name, value in row.items() if name != "seconds"]
    return zlib.crc32(repr(rest).encode(), zlib.crc32(row["seconds"].tobytes()))


def _row(block: TimedBlock) -> dict[str, Any]:
    samples = block.samples
    disturbance = samples.disturbance
    return {
        "round": block.round, "block": block.block, "position": block.position, "at_s": block.at_s,
        "seconds": samples.seconds, "loops": samples.loops, "process": samples.process,
    } | {name: getattr(disturbance, name) for name in DISTURBANCE_FIELDS}  # fmt: skip


def _block(row: dict[str, Any]) -> TimedBlock:
    known = {name: row[name] for name in DISTURBANCE_FIELDS}
    disturbance = Disturbance(**known | {"throttled_by": tuple(row["throttled_by"])})
    seconds = np.array(row["seconds"], dtype=np.float64)
    samples = Block(seconds, row["loops"], disturbance, row["process"])
    place = (row["round"], row["block"], row["position"], row["at_s"])
    return TimedBlock(*place, samples, row["session"])


def cannot_write(place: Path, error: OSError) -> UserError:
    """Return what to say where what is timed cannot be kept."""
    return UserError(
        f"Cannot write {place}: {error.strerror or error}. What was timed before is kept; "
        "`paretogrid resume` goes on from there."
    )
