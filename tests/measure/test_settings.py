"""Settings in effect: read back, and compared with what was asked for."""

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from harness.measure import settings
from harness.measure.placement import shift_heap
from harness.measure.runtimes import make_labels, take_batch

WANTED = {"threads": 1, "pin": True, "wait_policy": "active"}
FOUND: dict[str, Any] = {
    "threads_in_effect": 1, "affinity_in_effect": [1], "wait_policy_in_effect": "active",
}  # fmt: skip


def test_settings_that_took_effect_give_no_warning() -> None:
    assert settings.compare_settings(WANTED, FOUND) == []


@pytest.mark.parametrize(
    ("found", "warning"),
    [
        ({"threads_in_effect": 4}, "1 thread asked for, 4 in effect"),
        ({"affinity_in_effect": [0, 1]}, "pinning to 1 processor asked for, 2 in effect"),
        (
            {"wait_policy_in_effect": "passive"},
            "wait policy active asked for, passive in effect",
        ),
    ],
)
def test_a_setting_that_did_not_take_effect_is_named(found: Any, warning: str) -> None:
    assert settings.compare_settings(WANTED, FOUND | found) == [warning]


def test_more_threads_than_processors_are_oversubscribed() -> None:
    found = FOUND | {"threads_in_effect": 3, "affinity_in_effect": [0, 1]}
    warnings = settings.compare_settings(WANTED | {"threads": 3}, found)
    assert warnings == ["oversubscribed: 3 threads on 2 processors"]


def test_cells_that_are_not_pinned_may_have_more_processors_than_threads() -> None:
    found = FOUND | {"affinity_in_effect": [0, 1]}
    assert settings.compare_settings(WANTED | {"pin": False}, found) == []


def test_flushed_denormals_are_seen() -> None:
    assert not settings.flushes_denormals()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        assert settings.flushes_denormals()
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def defaults(dtype: torch.dtype, device: str) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_a_users_file_makes_the_default_is_not_what_our_own_numbers_are(
    dtype: torch.dtype, device: str
) -> None:
    with defaults(dtype, device):
        assert settings.read_global_settings()["denormals"] == "kept"
        assert settings.count_working_threads() >= 1
        assert shift_heap(random.Random(0))[0].device.type == "cpu"
        assert make_labels(3, 4).tolist() == [0, 1, 2, 0]
        assert make_labels(0, 4, (2,)).device.type == "cpu"
        given = torch.ones(2, 3, device="cpu")
        assert take_batch((given,), 5)[0].tolist() == [[1.0] * 3] * 5


def test_the_engine_of_quantized_kernels_is_a_setting() -> None:
    """Techniques choose steps for it."""
    engine = torch.backends.quantized.engine
    others = set(torch.backends.quantized.supported_engines) - {engine, "none"}
    before = settings.read_global_settings()
    for other in others:
        torch.backends.quantized.engine = other
        try:
            told = settings.compare_global_settings(before)
        finally:
            torch.backends.quantized.engine = engine
        assert len(told) == 1 and "quantized engine" in told[0]


def test_autocast_is_seen() -> None:
    assert settings.read_settings(("float32",), 1.0)["autocast_in_effect"] == "off"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert settings.read_settings(("float32",), 1.0)["autocast_in_effect"] == "cpu"


def test_torchs_build_and_instructions_are_named() -> None:
    found = settings.describe_build()
    assert "PyTorch built with" in found["torch_build"]
    assert found["torch_capability"]


PINNED = """
import os, torch
from harness.measure import settings
settings.apply_threads(2, pin=True)
x = torch.randn(512, 512)
for _ in range(200):
    x @ x
settings.pin_pool(2)
masks = sorted(sorted(os.sched_getaffinity(int(t))) for t in os.listdir("/proc/self/task"))
print(masks, settings.read_affinity())
"""


@pytest.mark.clock
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_each_thread_of_the_pool_has_a_processor_of_its_own() -> None:
    last = sorted(os.sched_getaffinity(0))[-2:]
    done = subprocess.run(
        [sys.executable, "-c", PINNED], capture_output=True, text=True, check=True
    )
    assert f"[{last[0]}], " in done.stdout or f"[{last[0]}]]" in done.stdout
    assert f"[{last[1]}]]" in done.stdout or f"[{last[1]}], " in done.stdout
    assert done.stdout.strip().endswith(str(last)), "together they are what the cell may use"


def test_threads_that_an_import_has_started_are_pinned_with_the_others() -> None:
    script = (
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "from harness.measure import settings\n"
        "settings.apply_threads(1, pin=True)\n"
        "print(len(settings.read_affinity()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"


def test_one_thread_is_left_where_it_is() -> None:
    before = os.sched_getaffinity(threading.get_native_id())
    settings.pin_pool(1)
    assert os.sched_getaffinity(threading.get_native_id()) == before


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="threads share the one processor")
def test_threads_that_work_are_always_seen() -> None:
    """By the tick of the kernel, at which it says what each has worked."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert {settings.count_working_threads() for _ in range(50)} == {2}
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("quota", [None, 0.5, 1, 2])
def test_a_thread_for_each_processor_is_too_many_for_a_smaller_quota_only(
    quota: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the thread that asks is pinned to, which is one of the processors."""
    monkeypatch.setattr(settings, "container_limits", lambda _: {"cpus": quota})
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        told = settings.compare_settings(
            WANTED | {"threads": 2}, FOUND | {"threads_in_effect": 2, "affinity_in_effect": [0, 1]}
        )
    finally:
        os.sched_setaffinity(0, before)
    assert len(told) == (quota is not None and quota < 2)
    assert not told or told[0].startswith("oversubscribed: 2 threads, and the container allows")


@pytest.mark.parametrize(
    "way", ["torch.backends.fp32_precision = 'bf16'",
            "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
            "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
            "torch.set_float32_matmul_precision('medium')"],
)  # fmt: skip
def test_precision_may_be_set_by_either_of_pytorchs_names(way: str) -> None:
    """PyTorch refuses to tell by the older name what was set by the newer one."""
    code = (
        "import torch\nfrom harness.measure import settings\n"
        f"before = settings.read_global_settings()\n{way}\n"
        "print(settings.compare_global_settings(before) != [])\n"
        "print(settings.read_settings(['float32'], 1.0)['matmul_precision_in_effect'])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    changed, precision = told.stdout.split("\n", 1)
    assert changed == "True"
    assert ("medium" in precision) == ("medium" in way)
    assert ("bf16" in precision) == ("bf16" in way)


@pytest.mark.parametrize("device", ["", "cpu"])
def test_a_mode_that_every_call_goes_through_is_a_setting(device: str) -> None:
    before = settings.read_global_settings()
    if device:  # it takes a quarter of a small layer's time, whichever device it is
        with torch.device(device):
            (warning,) = settings.compare_global_settings(before)
        assert "modes: none where the model was made, DeviceContext where it is timed" in warning
    assert settings.compare_global_settings(before) == []
