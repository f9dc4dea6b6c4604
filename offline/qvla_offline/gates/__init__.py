"""Chooses one bit-width per output channel under a budget, and reads and writes them."""

from __future__ import annotations

from qvla_offline.gates.costs import Pricing
from qvla_offline.gates.files import Gates, match_layers, read_gates, uniform, write_gates
from qvla_offline.gates.optimal import Allocation, optimal
from qvla_offline.gates.released import released_greedy

__all__ = [
    "Allocation",
    "Gates",
    "Pricing",
    "match_layers",
    "optimal",
    "read_gates",
    "released_greedy",
    "uniform",
    "write_gates",
]
