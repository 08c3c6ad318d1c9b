"""Simulate heats that end when their answer is known; say what that saves, and what still holds.

    python tests/benchmarks/early_heats.py --heats 120 --apart 0.02

Cells have the latencies and accuracies of a real run; rounds, sessions and answers are drawn.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.decide.test_early import simulate_heats


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heats", type=int, default=120)
    parser.add_argument("--apart", type=float, default=0.02, help="what sessions differ by")
    asked = parser.parse_args()
    print(simulate_heats(asked.heats, asked.apart, (4, 4, 8, 16)))


if __name__ == "__main__":
    main()
