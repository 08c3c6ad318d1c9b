"""Layer: the row that a part of a module becomes in `paretogrid inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layer:
    """A part of a module that is not taken apart any further.

    shape: of its output for one example; empty where it was not called. macs: for one example, None
    where an operator has no formula. weight_bytes: as stored. name: its path in the module, empty
    for what belongs to no part.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    nonzero_params: int
    macs: int | None
    weight_bytes: int

    @property
    def sparsity(self) -> float:
        """Share of the parameters that are zero; NaN where there are none."""
        return 1 - self.nonzero_params / self.params if self.params else float("nan")

    @property
    def bits(self) -> float:
        """Stored bits for each parameter, scales and codebooks included; NaN without any."""
        return 8 * self.weight_bytes / self.params if self.params else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Return the layer as plain data; None where there are no parameters."""
        shares = {"sparsity": self.sparsity, "bits": self.bits}
        return vars(self) | {name: value if self.params else None for name, value in shares.items()}
