"""Roofs: what they explain, how they are kept, and whether real calls come near them."""

import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.measure.devices import CpuDevice
from harness.measure.machine import describe_machine, fingerprint
from harness.measure.processor import data_caches
from harness.measure.roofline import Explanation, Roofs, Traffic, explain
from harness.measure.roofs import measure_roofs, roofs_for
from harness.measure.traffic import count_traffic

FLOAT = {"float32": 1.0}
ROOFS = Roofs(
    flops_per_s={"float32": 100e9, "bfloat16": 10e9, "int8": 400e9},
    bytes_per_s=((2**20, 40e9), (2**24, 20e9), (2**30, 10e9)),
    dispatch_s=1e-6,
)
TINY = {"cpu_model": "tiny", "caches": [{"level": 1, "type": "data", "size_bytes": 2**15}]}
ATTEMPTS = 3
pytestmark = [pytest.mark.clock, pytest.mark.usefixtures("one_thread")]


def keep(text: str, machine: dict[str, Any], folder: Path) -> Path:
    path = folder / fingerprint(machine) / "cpu-1.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which another machine and another version have left their roofs."""
    folder = tmp_path_factory.mktemp("roofs")
    machine = describe_machine()
    keep(json.dumps(ROOFS.to_json()), {**machine, "cpu_flags": ["other"]}, folder)
    keep('{"flops": 1}', machine, folder)
    return folder


@pytest.fixture(scope="module")
def measured(one_thread: None, folder: Path) -> Roofs:
    """The roofs of this machine, measured once for all tests."""
    return roofs_for(CpuDevice(), 1, describe_machine(), folder)


def test_many_flops_are_bound_by_computing() -> None:
    found = explain(1e9, Traffic(2**20, 1, FLOAT), 0.02, ROOFS)
    assert found == Explanation(pytest.approx(0.5), "compute")


def test_many_bytes_are_bound_by_memory() -> None:
    found = explain(1e6, Traffic(2**30, 1, FLOAT), 0.2, ROOFS)
    assert found == Explanation(pytest.approx(2**30 / 10e9 / 0.2), "memory")


def test_many_operators_are_bound_by_overhead_which_no_roof_excuses() -> None:
    found = explain(1e3, Traffic(4_000, 50, FLOAT), 60e-6, ROOFS)
    assert found.bound == "overhead"
    assert found.fraction_of_roof == pytest.approx(4_000 / 40e9 / 60e-6)


@pytest.mark.parametrize(
    ("products", "computing_s"),
    [
        ({"float32": 7.0}, 10.0),
        ({"int8": 1.0}, 2.5),
        ({"float32": 1.0, "int8": 1.0}, 5.0 + 1.25),
        ({"float32": 1.0, "int8": 3.0, "bfloat16": 0.0}, 2.5 + 1.875),
        ({"float64": 1.0}, 10.0),
        ({}, 10.0),
        ({"int8": math.nan, "float32": 1.0}, 10.0),
        ({"bfloat16": math.nan, "float32": 1.0}, 100.0),
    ],
)
def test_each_product_is_held_against_the_roof_of_its_type(
    products: dict[str, float], computing_s: float
) -> None:
    """10¹² FLOPs: float32 takes 10 s, int8 2.5 s, bfloat16 100 s; the slowest where in doubt."""
    found = explain(1e12, Traffic(100, 1, products), 100.0, ROOFS)
    assert found.fraction_of_roof == pytest.approx(computing_s / 100.0)


TYPES = st.sampled_from(["float32", "bfloat16", "int8", "tf32", "float8_e4m3fn", "float64"])
POSITIVE = st.floats(1e-3, 1e15)


@given(
    st.dictionaries(TYPES, st.floats(0, 1e15) | st.just(math.nan)),
    st.dictionaries(TYPES, POSITIVE), st.floats(0, 1e18), st.integers(0, 2**50),
)  # fmt: skip
def test_whatever_roofs_are_missing_a_cell_is_explained_or_nothing_is_said(
    products: dict[str, float], rates: dict[str, float], flops: float, moved: int
) -> None:
    roofs = replace(ROOFS, flops_per_s=rates)
    found = explain(flops, Traffic(moved, 3, products), 1.0, roofs)
    if math.isnan(found.fraction_of_roof):
        assert found.bound is None
        assert "float32" not in rates, "a missing type counts at float32's rate"
    else:
        assert found.bound in ("compute", "memory", "overhead")
        slowest = min([rates.get(name, rates.get("float32", 0)) for name in products] or [0])
        least_s = max(moved / 40e9, 0.0)
        assert found.fraction_of_roof >= least_s * (1 - 1e-9)
        if slowest:
            most_s = max(flops / slowest, moved / 10e9)
            assert found.fraction_of_roof <= most_s * (1 + 1e-9)


def test_what_moves_no_bytes_is_nowhere_near_the_roof() -> None:
    found = explain(0.0, Traffic(0, 0, {}), 1e-6, ROOFS)
    assert found.fraction_of_roof == 0


def test_bandwidth_is_interpolated_on_the_logarithm_of_the_working_set() -> None:
    assert ROOFS.bandwidth_at(2**22) == pytest.approx(30e9)
    assert ROOFS.bandwidth_at(2**24) == pytest.approx(20e9)
    assert ROOFS.bandwidth_at(2**27) == pytest.approx(15e9)


@pytest.mark.parametrize(("size", "rate"), [(0, 40e9), (1, 40e9), (2**20, 40e9), (2**40, 10e9)])
def test_beyond_what_was_measured_the_nearest_bandwidth_holds(size: int, rate: float) -> None:
    assert ROOFS.bandwidth_at(size) == pytest.approx(rate)


def test_roofs_survive_the_way_through_json() -> None:
    assert Roofs.from_json(json.loads(json.dumps(ROOFS.to_json()))) == ROOFS


def test_kept_roofs_are_read_and_not_measured_again(tmp_path: Path) -> None:
    keep(json.dumps(ROOFS.to_json()), TINY, tmp_path)
    assert roofs_for(CpuDevice(), 1, {**TINY, "host": "renamed"}, tmp_path) == ROOFS


def test_roofs_measured_beside_other_work_are_measured_again_and_the_better_kept(
    tmp_path: Path, measured: Roofs
) -> None:
    slow = replace(measured, flops_per_s={"float32": 1.0}, dispatch_s=1e-12, quiet=False)
    path = keep(json.dumps(slow.to_json()), TINY, tmp_path)
    found = roofs_for(CpuDevice(), 1, TINY, tmp_path)
    assert found.flops_per_s["float32"] > 1e6, "measured again"
    assert found.dispatch_s == 1e-12, "the better one is kept"
    assert found.times == 2
    assert Roofs.from_json(json.loads(path.read_text())) == found


@pytest.mark.parametrize(("free", "quiet"), [(2**40, True), (2**25, False)])
def test_roofs_of_a_machine_whose_memory_is_taken_are_measured_again(
    monkeypatch: pytest.MonkeyPatch, free: int, quiet: bool
) -> None:
    """A working set that fits into a cache says nothing of memory."""
    monkeypatch.setattr("harness.measure.roofs.count_others", lambda: 0)
    monkeypatch.setattr("harness.measure.roofs.available_memory_bytes", lambda: free)
    assert measure_roofs(CpuDevice(), [2**15, 2**20, 2**22]).quiet == quiet


def test_who_else_computes_on_the_device_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a card, the host's queue says nothing; scripted on the host."""
    monkeypatch.setattr("harness.measure.roofs.count_others", lambda: 0)
    monkeypatch.setattr(CpuDevice, "read_state", lambda _: {"others": 1})
    assert not measure_roofs(CpuDevice(), [2**15, 2**20, 2**22]).quiet


def test_a_machine_that_is_never_quiet_is_measured_three_times(
    tmp_path: Path, measured: Roofs
) -> None:
    restless = replace(measured, quiet=False, times=3)
    keep(json.dumps(restless.to_json()), TINY, tmp_path)
    assert roofs_for(CpuDevice(), 1, TINY, tmp_path) == restless


def test_roofs_of_another_machine_or_version_are_measured_anew_and_kept(
    measured: Roofs, folder: Path
) -> None:
    machine = describe_machine()
    assert measured != ROOFS
    again = roofs_for(CpuDevice(), 1, machine, folder)
    assert again.flops_per_s.keys() == measured.flops_per_s.keys()
    names = [path.name for path in (folder / fingerprint(machine)).iterdir()]
    assert names == ["cpu-1.json"], "no temporary file stays behind"


def test_roofs_that_can_be_neither_read_nor_kept_are_measured_all_the_same(
    tmp_path: Path, measured: Roofs
) -> None:
    in_the_way = tmp_path / fingerprint(TINY) / "cpu-1.json"
    (in_the_way / "something").mkdir(parents=True)
    found = roofs_for(CpuDevice(), 1, TINY, tmp_path)
    assert set(found.flops_per_s) == set(measured.flops_per_s)
    assert list(in_the_way.parent.iterdir()) == [in_the_way]


def test_roofs_of_other_threads_than_torch_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="threads 2 asked for, torch has 1"):
        roofs_for(CpuDevice(), 2, TINY, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_this_machines_roofs_are_positive_and_finite(measured: Roofs) -> None:
    rates = [*measured.flops_per_s.values(), *(rate for _, rate in measured.bytes_per_s)]
    assert all(0 < rate < math.inf for rate in [*rates, measured.dispatch_s])
    assert {"float32", "bfloat16"} <= set(measured.flops_per_s)
    assert measured.flops_per_s["float32"] > measured.bytes_per_s[-1][1] / 4


def test_working_sets_ascend_and_larger_ones_are_not_copied_faster(measured: Roofs) -> None:
    sizes = [size for size, _ in measured.bytes_per_s]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] <= 2 * 2**30
    # 3 times: a neighbour may have held back the small one.
    assert measured.bytes_per_s[-1][1] < 3 * measured.bytes_per_s[0][1]


def median_s(call: Callable[[], Any], calls: int) -> float:
    """The median time of a call, without the turns that other processes have meanwhile.

    On a quiet machine this thread's processor time is the wall time, as it waits for nothing.
    """
    call()
    times = []
    for _ in range(calls):
        begin = time.thread_time()
        call()
        times.append(time.thread_time() - begin)
    return median(times)


def explained_where_quiet(
    module: nn.Module, inputs: tuple[Tensor, ...], flops: float, first: Roofs, low: float
) -> Explanation:
    """Explain a real call; where the fraction is not in reach, measure roofs and call again.

    A virtual machine's processor may be slowed down for seconds by what other guests do: a roof
    that was measured meanwhile is too low, a call too slow. That says nothing of the method, so
    roof and call are taken close together, a few times.
    """
    traffic = count_traffic(module, inputs)
    for attempt in range(ATTEMPTS):
        roofs = measure_roofs(CpuDevice(), data_caches(describe_machine())) if attempt else first
        with torch.inference_mode():
            latency_s = median_s(partial(module, *inputs), 7)
        found = explain(flops, traffic, latency_s, roofs)
        if low <= found.fraction_of_roof <= 1.05:
            break
    return found


class Product(nn.Module):
    """A product into memory that is there."""

    def forward(self, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        return torch.mm(a, b, out=out)


class Negation(nn.Module):
    """An operator that reads and writes as a copy does, into memory that is there."""

    def forward(self, values: Tensor, out: Tensor) -> Tensor:
        return torch.neg(values, out=out)


def test_a_large_product_comes_near_the_roof_of_computing(measured: Roofs) -> None:
    side = 2048
    inputs = tuple(torch.randn(side, side) for _ in range(3))
    found = explained_where_quiet(Product(), inputs, 2 * side**3, measured, 0.8)
    assert found.bound == "compute"
    assert 0.8 <= found.fraction_of_roof <= 1.05


def test_a_large_copy_comes_near_the_roof_of_memory(measured: Roofs) -> None:
    elements = measured.bytes_per_s[-1][0] // 8
    inputs = (torch.ones(elements), torch.ones(elements))
    found = explained_where_quiet(Negation(), inputs, elements, measured, 0.7)
    assert found.bound == "memory"
    assert 0.7 <= found.fraction_of_roof <= 1.05


def test_a_tiny_network_at_batch_one_is_bound_by_overhead(measured: Roofs) -> None:
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    inputs = (torch.ones(1, 8),)
    traffic = count_traffic(module, inputs)
    with torch.inference_mode():
        latency_s = median_s(partial(module, *inputs), 1_000)
    found = explain(2 * (8 * 16 + 16 * 4), traffic, latency_s, measured)
    assert found.bound == "overhead"
    assert found.fraction_of_roof < 0.1
    assert traffic.operators * measured.dispatch_s < latency_s


def test_int8_is_what_dynamic_quantization_runs(measured: Roofs) -> None:
    if "int8" not in measured.flops_per_s:
        pytest.skip("no quantized kernels on this processor")
    subject = nn.Sequential(nn.Linear(1024, 1024, bias=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.ao.quantization.quantize_dynamic(subject.eval(), {nn.Linear}, torch.qint8)
    inputs = (torch.randn(1024, 1024),)
    found = explained_where_quiet(module, inputs, 2 * 1024**3, measured, 0.5)
    assert 0.5 <= found.fraction_of_roof <= 1.05
