"""Reproduces the greedy allocation of the released QVLA scripts, for comparison."""

from __future__ import annotations

import heapq
import itertools
import warnings
from collections.abc import Mapping, Sequence

import numpy as np


def released_greedy(
    proxies: Mapping[str, Mapping[int, np.ndarray]], bits: Sequence[int], target_avg_bits: float
) -> dict[str, np.ndarray]:
    """Chooses the bits of every output channel as `assign_gates_from_sensitivity.py` does.

    Returns {layer: uint8 [R]}. proxies: {layer: {bits: cost [R]}}, in the order of the file, which
    breaks ties. Every channel starts at the highest of `bits`; the cheapest next step down is taken
    until the mean over *channels* (not weights; scales uncounted) is at most the target. A step
    costs proxy[lower] / saved bits: the whole error of the lower level, not the increase. A channel
    whose layer has no score for the next level stays where it is; if that (or the lowest of `bits`)
    keeps the mean above the target, a warning names what was reached. Ties go to the earliest push,
    which is why this walks a heap instead of sorting.
    """
    levels = sorted(set(bits))
    below = dict(itertools.pairwise(reversed(levels)))
    costs = {
        name: {
            b: np.asarray(score, dtype=np.float64).tolist()
            for b, score in by_bits.items()
            if b in levels
        }
        for name, by_bits in proxies.items()
    }
    assigned = {
        name: [levels[-1]] * len(next(iter(by_bits.values())))
        for name, by_bits in proxies.items()
        if by_bits
    }
    channels = sum(map(len, assigned.values()))
    total = levels[-1] * channels
    heap: list[tuple[float, int, str, int, int]] = []
    pushes = 0

    def push(name: str, channel: int, current: int) -> None:
        nonlocal pushes
        lower = below.get(current)
        if lower is None or lower not in costs[name]:
            return
        heapq.heappush(
            heap, (costs[name][lower][channel] / (current - lower), pushes, name, channel, lower)
        )
        pushes += 1

    for name, row in assigned.items():
        for channel in range(len(row)):
            push(name, channel, levels[-1])
    while heap and total / channels > target_avg_bits:
        _, _, name, channel, lower = heapq.heappop(heap)
        total -= assigned[name][channel] - lower
        assigned[name][channel] = lower
        push(name, channel, lower)
    if channels and total / channels > target_avg_bits:
        reached = f"{total / channels:.4g} bits per channel reached, {target_avg_bits:g} asked"
        warnings.warn(
            f"{reached}: no lower bit-width is scored and allowed (see --bits)", stacklevel=2
        )
    return {name: np.array(row, dtype=np.uint8) for name, row in assigned.items()}
