"""Seeding: every generator at once, for one purpose."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def seed_everything(seed: int, purpose: str) -> None:
    """Seed every generator for one purpose, so that steps do not depend on one another."""
    number = int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:4], "big")
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)
