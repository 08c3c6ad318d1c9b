"""A grid expands to cells that keep their identity."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.grid import BASELINE, Cell
from harness.grid_file import built_in_grids, parse_grid, read_grid
from harness.sweep.plan import Plan, Technique, heat_name, plan_lineups

AXES = st.fixed_dictionaries(
    {
        "models": st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, max_size=4),
        "techniques": st.lists(st.sampled_from([BASELINE, "a", "b(1)", "c"]), min_size=1),
        "devices": st.lists(st.sampled_from(["cpu", "cuda", "cuda:1"]), min_size=1, max_size=3),
        "threads": st.lists(st.integers(1, 4), min_size=1, max_size=3),
        "batch": st.lists(st.integers(1, 64), min_size=1, max_size=3),
        "seeds": st.lists(st.integers(0, 2), min_size=1, max_size=3),
    }
)


def make_grid(exclude=(), **axes):
    return parse_grid({"grid": {"models": ["one"], **axes}, "exclude": list(exclude)}, "a test")


def list_heats(grid, finished=(), tasks=None):
    plan = Plan(grid, {}, tasks or {})
    return [heat for heats in plan_lineups(plan, finished) for heat in heats]


def test_the_id_of_a_cell_never_changes():
    # printf '{"batch":64,"device":"cpu","model":"mnist1d-cnn","runtime":"eager","seed":0,
    #   "technique":"prune-channels(0.5)","threads":2}' | sha256sum   (in one line)
    cell = Cell("mnist1d-cnn", "prune-channels(0.5)", "cpu", 2, 64, "eager", 0)
    assert cell.id == "1e0fd93d29a0"


def test_the_id_of_a_cell_does_not_depend_on_how_letters_are_stored():
    # the same, with é as \u00e9
    assert Cell("réseau.py:net", BASELINE, "cuda:1", 1, 1, "eager", 7).id == "201699d721db"


def test_every_axis_is_part_of_the_id():
    cell = Cell("m", "t", "cpu", 1, 1, "eager", 0)
    other = {"model": "n", "technique": "u", "device": "cuda", "threads": 2, "batch": 2,
             "runtime": "compile", "seed": 1}  # fmt: skip
    changed = [Cell(**{**cell.axes(), name: value}) for name, value in other.items()]
    assert other.keys() == cell.axes().keys()
    assert len({one.id for one in (cell, *changed)}) == len(changed) + 1


def test_a_grid_expands_to_the_product_of_its_axes():
    grid = make_grid(
        models=["one", "two"], techniques=[BASELINE, "a", "b"], devices=["cpu", "cuda"],
        threads=[1, 2], batch=[1, 16, 64], seeds=[0, 1],
    )  # fmt: skip
    assert len(grid.expand()) == 2 * 3 * 2 * 2 * 3 * 2


def test_what_is_listed_twice_is_measured_once():
    grid = make_grid(models=["one", "one"], techniques=["a", "a"], threads=[1, 1], seeds=[0, 0])
    assert [cell.technique for cell in grid.expand()] == [BASELINE, "a"]


def test_the_baseline_is_measured_where_nobody_lists_it():
    assert {cell.technique for cell in make_grid(techniques=["a"]).expand()} == {BASELINE, "a"}


@given(AXES)
def test_each_heat_begins_with_its_baseline_and_no_cell_is_lost(axes):
    grid = make_grid(**axes)
    cells = grid.expand()
    sizes = [len(set(values)) for name, values in axes.items() if name != "techniques"]
    expected = len({BASELINE, *axes["techniques"]})
    for size in sizes:
        expected *= size
    assert len(cells) == len({cell.id for cell in cells}) == expected
    for _, heat in itertools.groupby(cells, key=lambda cell: cell.place):
        first, *others = heat
        assert first.technique == BASELINE
        assert all(cell.technique != BASELINE for cell in others)
    heats = list_heats(grid)
    assert sorted(cell for heat in heats for cell in heat.cells) == sorted(cells)
    assert all(heat.cells[0].technique == BASELINE for heat in heats)
    assert all(len({cell.place for cell in heat.cells}) == 1 for heat in heats)


@given(AXES)
def test_cells_of_one_task_share_a_heat_with_the_baselines_of_their_models(axes):
    grid = make_grid(**axes)
    heats = list_heats(grid, tasks=dict.fromkeys(axes["models"], "digits"))
    assert sorted(cell for heat in heats for cell in heat.cells) == sorted(grid.expand())
    places = [cell.place[1:] for heat in heats for cell in heat.cells[:1]]
    assert len(places) == len(set(places)), "a heat for each place"
    for heat in heats:
        assert len({cell.place[1:] for cell in heat.cells}) == 1
        models = list(dict.fromkeys(cell.model for cell in heat.cells))
        assert len(models) == len(set(axes["models"]))
        assert [c.model for c in heat.cells if c.technique == BASELINE] == models
        assert heat.place.startswith("digits/")


@given(AXES, st.data())
def test_what_is_left_of_a_run_still_meets_its_baselines(axes, data):
    grid = make_grid(**axes)
    cells = grid.expand()
    finished = set(data.draw(st.lists(st.sampled_from([cell.id for cell in cells]))))
    some = dict.fromkeys(axes["models"], st.sampled_from("xy"))
    tasks = data.draw(st.fixed_dictionaries(some))
    heats = list_heats(grid, finished, tasks)
    left = [cell.id for heat in heats for cell in heat.cells]
    assert sorted(left) == sorted(cell.id for cell in cells if cell.id not in finished)
    for heat in heats:
        present = [*heat.references, *heat.cells]
        assert all(cell.id in finished and cell.technique == BASELINE for cell in heat.references)
        for cell in heat.cells:
            (baseline,) = (c for c in present if c.place == cell.place and c.technique == BASELINE)
            assert (baseline in heat.references) == (baseline.id in finished)
        assert len({cell.id for cell in present}) == len(present)
    assert len({heat.place for heat in heats}) == len(heats)


@given(st.lists(st.sampled_from(["a/cpu/0/1/8", "a/cpu/0/1/1"]), max_size=9))
def test_no_two_heats_have_the_same_name(places):
    used = set()
    for place in places:
        name = heat_name(place, used)
        assert name not in used
        assert name.startswith(place)
        used.add(name)
    assert set(places) <= used, "the first at a place has its name"


def test_a_run_needs_the_devices_of_its_cells_and_the_card_it_trains_on():
    def used(devices, prepare):
        tables = {"grid": {"models": ["one"], "devices": devices}, "prepare": prepare}
        return parse_grid(tables, "a test").used_devices()

    assert used(["cuda"], {}) == ("cuda",), "the host stays free for runs on other cards"
    assert used(["cpu"], {}) == ("cpu",)
    assert used(["cpu"], {"device": "cuda:1"}) == ("cpu", "cuda:1")
    assert used(["cuda"], {"device": "cuda"}) == ("cuda",)


def test_an_exclusion_is_applied_and_counted():
    grid = make_grid(
        models=["one", "two"], techniques=["a", "b"], devices=["cpu", "cuda"], threads=[1, 2],
        exclude=[{"device": "cuda", "technique": "a"}, {"model": "two", "threads": 2}],
    )  # fmt: skip
    assert grid.exclusions() == [
        ({"technique": "a", "device": "cuda"}, 4),
        ({"model": "two", "threads": 2}, 6),
    ]
    assert len(grid.product()) == 2 * 3 * 2 * 2
    assert len(grid.expand()) == 24 - 4 - 6 + 1  # one cell is in both
    assert not [c for c in grid.expand() if (c.device, c.technique) == ("cuda", "a")]


def test_a_plan_survives_being_written_down():
    grid = make_grid(techniques=["a"], exclude=[{"technique": "a", "threads": 1}], threads=[1, 2])
    plan = Plan(grid, {"a": Technique(("cpu",), "executed", 1)}, {"one": "digits"})
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("name", built_in_grids())
def test_a_built_in_grid_is_valid(name):
    grid = read_grid(name)
    assert len(grid.expand()) >= len(grid.grid.models)
    assert all(count > 0 for _, count in grid.exclusions())


def test_there_are_built_in_grids_for_each_kind_of_user():
    assert {"demo", "nightly", "gpu-vs-cpu"} <= set(built_in_grids())


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "CPU", "cuda:1x", "cpu:0", ""])
def test_only_devices_that_torch_names_so_are_taken(device):
    with pytest.raises(UserError, match="Unknown device"):
        make_grid(devices=[device])


def test_whole_numbers_are_taken_where_seconds_are_asked_for():
    grid = parse_grid({"grid": {"models": ["one"]}, "budget": {"timeout_s": 5}}, "a test")
    assert grid.budget.timeout_s == 5.0


def test_a_star_in_an_exclusion_stands_for_any_text_but_never_for_the_baseline():
    names = ["prune(0.5)", "prune(0.9) + x", "x + prune(0.1)", "pruned"]
    grid = make_grid([{"technique": "prune(*"}], techniques=names)
    assert [cell.technique for cell in grid.expand()] == [BASELINE, "x + prune(0.1)", "pruned"]
    everything = make_grid([{"model": "o*", "technique": "*"}], techniques=names)
    assert [cell.technique for cell in everything.expand()] == [BASELINE]
    assert everything.exclusions() == [({"model": "o*", "technique": "*"}, 4)]


def test_training_is_a_runtime_of_its_own():
    data = {"task": "training", "grid": {"models": ["one"], "techniques": ["a"]}}
    assert {cell.runtime for cell in parse_grid(data, "a test").expand()} == {"training"}
    assert {cell.runtime for cell in make_grid().expand()} == {"eager"}
