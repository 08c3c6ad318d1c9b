"""Sessions: each heat is timed several times, apart in time and in processes of other servers.

What one server's processes have in common, and what a machine does for some seconds, no number of
rounds within a session shows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, isfinite

from harness.errors import WorkerFailure, WorkerRefusal
from harness.grid import Cell, Grid
from harness.measure.roofline import Roofs
from harness.stats import LEAST_FOR_INTERVAL
from harness.store import Run, control_id
from harness.sweep.allowance import Allowance
from harness.sweep.alone import measure_energy
from harness.sweep.conclude import conclude_again, conclude_kept, has_place
from harness.sweep.crew import Crew, find_whole_s
from harness.sweep.heat import OVERDRAFT
from harness.sweep.outcomes import Outcomes
from harness.sweep.plan import imports_of, shuffle_seed
from harness.sweep.recover import find_begun
from harness.sweep.seat import Seat, TimedHeat
from harness.sweep.shop import Shop
from harness.sweep.tables import samples_table
from harness.wording import counted

LEAST_S = 1.0
"""Of a cell in a session: where it has less, loading it again would cost more than it tells."""


def count_sessions(grid: Grid, cells: int) -> int:
    """Return in how many sessions the heats of a grid are timed, of which so many cells are left.

    As many as the grid says, if each cell has a second in each.
    """
    budget = grid.budget
    whole_s = (budget.max_seconds or float("inf")) / max(1, cells)
    most = int(min(whole_s, budget.max_seconds_per_cell) / LEAST_S)
    return max(1, min(grid.measure.sessions, most))


@dataclass
class OpenHeat:
    """A heat that is being timed: by whom, in how many processes a cell; sessions that are left."""

    name: str
    place: str
    crew: Crew
    seats: list[Seat]
    processes: int
    roofs: Roofs | None
    left: int
    session_s: float = float("nan")
    """For how long each cell was timed in the last session."""
    resumed: bool = False
    """It was begun in an earlier run: what its sessions showed was, in part, learnt then."""

    @property
    def wanted(self) -> int:
        """How many cells it is timed for; the others are their baselines."""
        return sum(seat.kept for seat in self.going)

    @property
    def going(self) -> list[Seat]:
        """Who is timed further."""
        return [seat for seat in self.seats if seat.failure is None and not seat.concluded]


class Sessions:
    """Times heats, `count` times each, and keeps what they found.

    find_key: what a cell's model is now, by its key; a later session imports the user's files anew.
    """

    def __init__(
        self, count: int, shop: Shop, run: Run, outcomes: Outcomes, allowance: Allowance,
        find_key: Callable[[Cell], str],
    ) -> None:  # fmt: skip
        self.count = count
        self.open: list[OpenHeat] = []
        self._shop = shop
        self._run = run
        self._outcomes = outcomes
        self._allowance = allowance
        self._find_key = find_key
        self._begun: set[str] = set()
        """The heats that have been timed here: they go on apart from each other."""
        self._told = False
        self._changes: dict[str, WorkerFailure | WorkerRefusal | None] = {}
        """Of each variant, what is known by now against timing it in this session."""

    def begin(
        self, name: str, place: str, crew: Crew, seats: Sequence[Seat], processes: int,
        roofs: Roofs | None,
    ) -> None:  # fmt: skip
        """Time a heat for the first time; it is `open` where sessions are to come."""
        heat = OpenHeat(name, place, crew, list(seats), processes, roofs, self.count)
        if heat.wanted:  # not baselines alone, whose cells have all failed
            known = (self._run, self._shop.journal, crew.place)
            begun = find_begun(*known, seats, self._begun)
            heat.seats += begun.departed
            heat.left = max(1, self.count - begun.sessions)
            heat.resumed = begun.resumed
            self._allowance.note_done(heat.wanted * (self.count - heat.left))
            self._time(heat, self._begun)

    def renew(self) -> list[OpenHeat]:
        """Take another server, and return the heats that are to go on in its processes."""
        self._shop.launcher.renew()
        self._changes.clear()
        heats, self.open = self.open, []
        return heats

    def go_on(self, heat: OpenHeat) -> None:
        """Time a heat once more, in processes of the server that there is now."""
        self._allowance.note_begun(heat.wanted)
        for seat in heat.going:
            if imports_of(self._shop.grid, seat.cell):
                if seat.variant not in self._changes:  # it is in the heats of other batches, too
                    self._changes[seat.variant] = self._find_change(seat)
                seat.problem = self._changes[seat.variant]
        self._time(heat, None)

    def _find_change(self, seat: Seat) -> WorkerFailure | WorkerRefusal | None:
        """Return why a model of the user's cannot be timed further, if it cannot.

        A file that is another each time that it is imported tells nothing of a change.
        """
        try:
            now = self._find_key(seat.cell)
            if now == seat.variant:
                return None
            self._shop.launcher.close_templates()
            if self._find_key(seat.cell) != now:
                return None
        except (WorkerFailure, WorkerRefusal) as problem:
            return problem
        return WorkerFailure("exception", "its model has changed since this run began")

    def _time(self, heat: OpenHeat, others: Collection[str] | None) -> None:
        """Time a session of a heat, and keep what was found until then.

        `others`: the heats that it is none of; None where it is known by its name.
        """
        shop, first, wanted = self._shop, heat.seats[0].cell, heat.wanted
        number = self.count - heat.left + 1
        again = f", session {number} of {self.count}" if self.count > 1 else ""
        shop.progress.phase(f"{heat.place}: timing {counted(len(heat.going), 'cell')}{again}")
        allow = partial(self._allow, wanted, len(heat.going) + 1, heat.left)
        seed = shuffle_seed(self._run.run_id, heat.name)
        processes = heat.processes
        if isfinite(heat.session_s):
            processes = heat.crew.choose_processes(heat.going, processes, heat.session_s)
        enough_rounds = ceil(LEAST_FOR_INTERVAL * number / self.count)
        timed = heat.crew.run(heat.name, heat.seats, processes, seed, allow, others, enough_rounds)
        heat.name = timed.name
        heat.left -= 1
        heat.session_s = timed.took_s / (len(heat.going) + 1)
        spared = heat.left
        if all(has_place(seat) for seat in heat.going if seat.kept) or not self._has_time(heat):
            heat.left = 0
        self._begun.add(timed.name)
        self._outcomes.heats.add(timed.name)
        self._allowance.note_timed(timed.took_s)
        speed = shop.hardware.speed_in(timed, first)
        goes_on = heat.left > 0 and not timed.interrupted
        concluded = self._conclude(replace(timed, machine_speed=speed, open=goes_on), heat)
        if not goes_on and not timed.interrupted and not heat.resumed:
            shop.hardware.note_sessions(timed, heat.seats)
        heat.seats = [seat for seat in heat.seats if seat.judged]
        for seat in heat.seats:
            seat.let_go()
        goes_on = goes_on and heat.wanted > 0
        self._allowance.note_done(wanted + spared * (wanted - heat.wanted * goes_on))
        if goes_on:
            self.open.append(heat)
        shop.interruption.release()
        source = shop.hardware.facts_of(first.device).get("energy")
        if source is not None:
            self._measure_energy(heat, concluded, source)

    def _has_time(self, heat: OpenHeat) -> bool:
        """Tell whether any cell has not spent all it has, or may overdraw that."""
        whole_s = find_whole_s(self._shop.grid.budget)
        return any(
            seat.member.spent_s < whole_s
            or (
                len(seat.member.rounds()) < LEAST_FOR_INTERVAL
                and seat.member.spent_s < OVERDRAFT * whole_s
            )
            for seat in heat.going
            if seat.member
        )

    def _conclude(self, timed: TimedHeat, heat: OpenHeat) -> list[Seat]:
        """Keep what a heat has found, and return whose records are the last ones.

        A baseline of several heats has one row.
        """
        control = control_id(timed.name)
        self._run.add_control(control, samples_table(control, timed.name, timed.control))
        budget, earlier = self._shop.grid.budget, self._outcomes.of_heat(timed.name)
        known = (timed, budget, heat.roofs, self._shop.processors, earlier)
        for seat, record in conclude_again(timed, heat.seats, heat.roofs):
            seat.record = record
            self._run.add_row(record)
        concluded = []
        for seat, record, examples in conclude_kept(*known):
            samples = samples_table(seat.cell.id, timed.name, seat.member)
            went_on = record.status == "partial" and not timed.interrupted
            self._outcomes.failures += went_on and seat.failure is not None
            goes_on = timed.open and seat.failure is None and not has_place(seat)
            if goes_on:  # it has its row until the next session
                if record.status != "failed":  # by a mistake of ours, which that may not make
                    self._outcomes.keep(record, samples, examples)
                continue
            self._outcomes.keep(record, samples, examples)
            if seat.kept:
                self._shop.progress.done(record)
            seat.record, seat.kept, seat.concluded = record, False, True
            concluded.append(seat)
        partial = {cell for cell, name in self._outcomes.partial.items() if name == timed.name}
        journal = None if timed.open else timed.journal
        if journal is not None and not journal.holds & partial:
            journal.remove()  # all that it holds has become results
        return concluded

    def _allow(
        self, cells: int, members: int, sessions: int, spent_s: float, loading: float
    ) -> float:
        """Return how long each cell may be timed in a session; say so where it is too short."""
        own_s = max(0.0, self._shop.grid.budget.max_seconds_per_cell - spent_s) / sessions
        seconds = self._allowance.seconds_per_cell(cells, members, own_s, loading)
        if self._allowance.overrun_s > 1 and not self._told:
            self._told = True
            self._shop.progress.phase(
                "the time is too short for this grid by "
                f"{self._allowance.overrun_s:.0f} s or more: each cell has its first rounds only"
            )
        return seconds

    def _measure_energy(self, heat: OpenHeat, seats: Sequence[Seat], source: str) -> None:
        """Add their energy to rows that are kept already: it takes long, and may lose nothing."""
        timed = [seat for seat in seats if seat.record.status == "measured"]
        for number, seat in enumerate(timed, 1):
            cells = counted(len(timed), "cell")
            self._shop.progress.phase(f"{heat.place}: energy of {number} of {cells}")
            measure_energy(self._shop, seat, source)
            self._run.add_row(seat.record)
