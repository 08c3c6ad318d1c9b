"""Samples as a worker returns them, made without one."""

from dataclasses import dataclass

import numpy as np

from harness.measure.disturbance import Disturbance

UNDISTURBED = Disturbance("")


@dataclass(frozen=True)
class Samples:
    seconds: np.ndarray
    loops: int = 1
    disturbance: Disturbance = UNDISTURBED
    process: int = 1
