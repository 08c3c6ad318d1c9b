"""Settings: asked for, applied, and read back as they are in effect."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn


def apply_threads(threads: int, pin: bool) -> None:
    """Give this process so many threads, pinned to the last so many of its processors."""
    if pin:
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[-min(threads, len(allowed)) :])
    torch.set_num_threads(threads)


def read_settings(module: nn.Module) -> dict[str, Any]:
    """Return threads, affinity, wait policy and weight type as they are in effect here."""
    types = {str(p.dtype).removeprefix("torch.") for p in module.parameters()}
    spin = os.environ.get("GOMP_SPINCOUNT")
    policy = os.environ.get("OMP_WAIT_POLICY", "").lower()
    return {
        "threads_in_effect": torch.get_num_threads(),
        "affinity_in_effect": sorted(os.sched_getaffinity(0)),
        "wait_policy_in_effect": "passive" if policy == "passive" or spin == "0" else "active",
        "dtype_in_effect": "+".join(sorted(types)) or "quantized",
    }


def compare_settings(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return a warning for each setting that was asked for and did not take effect."""
    warnings = []
    if found["threads_in_effect"] != wanted["threads"]:
        warnings.append(
            f"{wanted['threads']} threads asked for, {found['threads_in_effect']} in effect"
        )
    cores = len(found["affinity_in_effect"])
    if wanted["threads"] > cores:
        warnings.append(f"oversubscribed: {wanted['threads']} threads on {cores} processors")
    if found["wait_policy_in_effect"] != wanted["wait_policy"]:
        warnings.append(
            f"wait policy {wanted['wait_policy']} asked for, "
            f"{found['wait_policy_in_effect']} in effect"
        )
    return warnings
