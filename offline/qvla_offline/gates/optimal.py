"""Finds the gates of least total sensitivity within a budget of bits.

This is a multiple-choice knapsack, solved by its Lagrangian relaxation.
Every channel offers one point (cost, sensitivity) per bit-width. The relaxation walks the edges of
all channels' lower convex hulls from the steepest down. A prefix of that walk is optimal for the
bits that it spends, so at any budget only the one channel at the cut can be wrong, and the linear
bound limits by how much (Sinha and Zoltners 1979).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qvla_offline.gates.costs import Pricing
from qvla_ros.errors import QvlaError

_FILL_EDGES = 100_000  # after the cut, so many smaller edges are tried against the bits left over


@dataclass(frozen=True)
class Allocation:
    """Gates, the budget that they were asked to keep, and what they reach.

    layers: {name: uint8 [R]}. Bits per weight include scales. total: summed sensitivity. bound: no
    gates within the budget have a total below it.
    """

    layers: dict[str, np.ndarray]
    asked_bits_per_weight: float
    reached_bits_per_weight: float
    total: float
    bound: float

    @property
    def gap(self) -> float:
        """How far above the best possible the total can be, as a fraction of it."""
        return (self.total - self.bound) / self.total if self.total > 0 else 0.0


def optimal(
    scores: Mapping[str, np.ndarray],
    columns: Mapping[str, int],
    bits: Sequence[int],
    target_avg_bits: float,
    pricing: Pricing,
    allowed: Mapping[str, Sequence[int]] | None = None,
) -> Allocation:
    """Finds gates of least summed sensitivity that take at most `target_avg_bits` a weight.

    The budget includes scales.
    scores: {layer: [len(bits), R]}, rows in the order of `bits` (ascending); columns: {layer: C}.
    allowed: {layer: those of `bits` that its rows may have}; None is all.
    Raises QvlaError when the budget is below the cheapest gates.
    """
    prices = pricing.choices(columns, bits)
    names = list(scores)
    rows = [scores[name].shape[1] for name in names]
    weights = sum(count * columns[name] for name, count in zip(names, rows, strict=True))
    table = np.concatenate([scores[name].T for name in names]).astype(np.float64)
    price_table = np.repeat(np.stack([prices[name] for name in names]), rows, axis=0)
    broken = ~np.isfinite(table).all(axis=1)
    if broken.any():
        layer = names[int(np.searchsorted(np.cumsum(rows), int(np.argmax(broken)), side="right"))]
        raise QvlaError(
            "sensitivity",
            f"NaN or infinity in {layer}",
            "finite scores",
            "compute the sensitivity again",
        )
    may_have = allowed or dict.fromkeys(names, bits)
    for name, part in zip(names, np.split(table, np.cumsum(rows)[:-1]), strict=True):
        part[:, ~np.isin(bits, may_have[name])] = np.inf
    by_layer = dict(zip(names, rows, strict=True))
    budget = spendable_bits(by_layer, columns, may_have, target_avg_bits, pricing)
    choice, total, bound = allocate(table, price_table, budget)
    widths = np.asarray(bits, dtype=np.uint8)[choice]
    layers = dict(zip(names, np.split(widths, np.cumsum(rows)[:-1]), strict=True))
    reached = int(_at(price_table, choice).sum()) / weights
    return Allocation(layers, target_avg_bits, reached, total, bound)


def spendable_bits(
    rows: Mapping[str, int],
    columns: Mapping[str, int],
    allowed: Mapping[str, Sequence[int]],
    target_avg_bits: float,
    pricing: Pricing,
) -> int:
    """Returns the bits that the layers {name: R} and {name: C} may take together.

    allowed: {name: bit-widths, ascending}. QvlaError if the cheapest gates take more.
    """
    weights = sum(count * columns[name] for name, count in rows.items())
    budget = int(np.floor(target_avg_bits * weights + 1e-6))
    cheapest = _spent(rows, columns, {name: allowed[name][0] for name in rows}, pricing)
    if budget < cheapest:
        widest = _spent(rows, columns, {name: allowed[name][-1] for name in rows}, pricing)
        least = {allowed[name][0] for name in rows}
        what = f"{least.pop()} bits everywhere" if len(least) == 1 else "the least of every layer"
        raise QvlaError(
            "target_avg_bits",
            target_avg_bits,
            f"at least {cheapest / weights:.4f} bits per weight ({what}, with scales) and at most "
            f"{widest / weights:.4f}, which is the range that can be reached",
            "raise --target_avg_bits, put a lower bit-width into --bits, or allow one in "
            "--layer_bits",
        )
    return budget


def _spent(
    rows: Mapping[str, int],
    columns: Mapping[str, int],
    widths: Mapping[str, int],
    pricing: Pricing,
) -> int:
    """Returns the bits of one width a layer, {name: bits}."""
    return sum(
        count * pricing.row_bits(columns[name], widths[name]) for name, count in rows.items()
    )


def allocate(
    scores: np.ndarray, prices: np.ndarray, budget: int
) -> tuple[np.ndarray, float, float]:
    """Chooses one column a row of `scores` [N, n], at ascending prices int64 [N, n], in `budget`.

    An infinite score is a column that its row may not have; each row has one that it may.
    Returns the chosen columns int64 [N], their summed score, and the lower bound that the linear
    relaxation gives.
    """
    channel, target, gain, price = _hull_edges(scores, prices)
    choice = np.isfinite(scores).argmax(axis=1)
    cheapest = int(_at(prices, choice).sum())
    fits = np.cumsum(price) <= budget - cheapest
    cut = int(fits.argmin()) if not fits.all() else fits.size
    bound = _at(scores, choice).sum() - gain[:cut].sum()
    np.maximum.at(choice, channel[:cut], target[:cut])
    left = int(budget - cheapest - price[:cut].sum())
    if cut < fits.size:
        bound -= gain[cut] / price[cut] * left
        _fill(choice, channel[cut:], target[cut:], price[cut:], left)
    total = float(_at(scores, choice).sum())
    return choice, total, min(float(bound), total)


def _at(values: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """Returns values[n, choice[n]] of every row, [N]."""
    return np.take_along_axis(values, choice[:, None], axis=1)[:, 0]


def _hull_edges(
    scores: np.ndarray, prices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns all channels' lower-hull edges, steepest first.

    Of each edge: the channel, the column reached, the score saved, the bits spent.
    """
    count, columns = scores.shape
    if columns == 1:  # one bit-width: nothing to buy
        nothing = np.zeros(0)
        return nothing.astype(np.int64), nothing.astype(np.int64), nothing, nothing.astype(np.int64)
    everyone = np.arange(count)
    current = np.isfinite(scores).argmax(axis=1)
    edges = []
    for _ in range(columns - 1):
        here = scores[everyone, current]
        paid = prices[everyone, current]
        slope = np.zeros(count)
        gain = np.zeros(count)
        spent = np.zeros(count, np.int64)
        reached = current.copy()
        for column in range(1, columns):
            saved = here - scores[:, column]
            price = prices[:, column] - paid
            with np.errstate(divide="ignore", invalid="ignore"):
                rate = np.where((column > current) & (saved > 0), saved / price, 0.0)
            better = (rate > slope) | ((rate == slope) & (saved > gain) & (rate > 0))
            slope = np.where(better, rate, slope)
            gain = np.where(better, saved, gain)
            spent = np.where(better, price, spent)
            reached = np.where(better, column, reached)
        active = np.flatnonzero(slope > 0)
        edges.append((active, reached[active], gain[active], spent[active], slope[active]))
        current = reached
    channel, target, gain, price, slope = (
        np.concatenate(parts) for parts in zip(*edges, strict=True)
    )
    # stable: a channel's own edges keep their order when slopes are equal
    order = np.argsort(-slope, kind="stable")
    return channel[order], target[order], gain[order], price[order]


def _fill(
    choice: np.ndarray, channel: np.ndarray, target: np.ndarray, price: np.ndarray, left: int
) -> None:
    """Spends, in place, what the edge at the cut left over on later edges that still fit."""
    blocked: set[int] = set()
    edges = (array[:_FILL_EDGES].tolist() for array in (channel, target, price))
    for c, t, p in zip(*edges, strict=True):
        if c in blocked or p > left:
            blocked.add(c)
            continue
        choice[c] = t
        left -= p
