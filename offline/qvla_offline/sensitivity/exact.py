"""Measures the action sensitivity instead of estimating it.

One channel is quantized, the policy runs from the changed block on, and the actions are compared.
That is one run per channel and bit-width. So it checks the first-order estimate on a sample of
channels, and replaces it where that matters most. (The paper measures its top-ranked channels so.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from qvla_offline.blockwise.passes import BlockPass, Blockwise, Execute, Work, plainly
from qvla_offline.blockwise.weights import members_of
from qvla_offline.checkpoints.targets import QuantizableLayer
from qvla_offline.quantization.quantizer import (
    NO_STATISTICS,
    LayerStatistics,
    quantize_layer,
)
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.replacement import LayerState, put_rows
from qvla_ros.progress import track

Choice = tuple[str, int, int]  # module, channel, bits


@dataclass(frozen=True)
class Agreement:
    """The agreement of first-order scores with measured ones, over `count` channels.

    rank_correlation: Spearman's, of the scores as the file holds them. ratio: median of measured
    over estimated, both on the same samples. Either is None where there are too few channels.
    by_bits: {bits: (count, rank correlation, ratio)}.
    """

    count: int
    rank_correlation: float | None
    ratio: float | None
    by_bits: dict[int, tuple[int, float | None, float | None]]

    def table(self) -> str:
        """Returns one line per bit-width, then one for all: channels, rank correlation, ratio.

        None is shown as a dash.
        """
        rows = [*self.by_bits.items(), ("all", (self.count, self.rank_correlation, self.ratio))]
        lines = [
            f"{name:>4} {n:>8} {_number(rank):>17} {_number(ratio):>21}"
            for name, (n, rank, ratio) in rows
        ]
        return "\n".join(["bits channels  rank correlation  measured / estimated", *lines])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


@torch.no_grad()
def measured_scores(
    policy: Blockwise,
    targets: Mapping[str, QuantizableLayer],
    samples: Sequence[Any],
    choices: Sequence[Choice],
    scheme: QuantizationScheme,
    statistics: Mapping[str, LayerStatistics] = NO_STATISTICS,
) -> np.ndarray:
    """Measures the mean over samples of ||A(w + dw) - A(w)||^2 for each (module, channel, bits).

    Returns float64 [len(choices)]. A sample may be a batch: actions [B, K, A] count as B samples.
    For each choice the policy runs from the block of its module on. Weights are put back even when
    interrupted. statistics: for quantizers that need them.
    """
    owner = {
        name: block
        for block, names in members_of(policy.weights.blocks, targets).items()
        for name in names
    }
    scores = np.zeros(len(choices))
    with BlockPass(policy, samples, keep=True) as unchanged:
        unchanged.forward()
        reference = [unchanged.result(sample).double() for sample in range(len(samples))]
        count = sum(len(rows) for rows in reference)
        for index, choice in enumerate(track(choices, "exact", total=len(choices))):
            block = owner[choice[0]]
            work = _with_one_row_quantized(targets, choice, owner, scheme, statistics)
            with BlockPass(policy, samples, over=unchanged, changed=block) as run:
                run.forward(work=work)
                for sample, before in enumerate(reference):
                    scores[index] += (
                        float((run.result(sample).double() - before).square().sum()) / count
                    )
    return scores


def _with_one_row_quantized(
    targets: Mapping[str, QuantizableLayer],
    choice: Choice,
    owner: Mapping[str, str],
    scheme: QuantizationScheme,
    statistics: Mapping[str, LayerStatistics],
) -> Work:
    module, channel, bits = choice

    @contextmanager
    def work(index: int, name: str, block: nn.Module) -> Iterator[Execute]:
        if name != owner[module]:
            with plainly(index, name, block) as execute:
                yield execute
            return
        layer = targets[module]
        kept = LayerState.of(layer)
        row = torch.tensor([channel])
        try:
            quantized = quantize_layer(
                kept.weight[row], [bits], scheme, f"{module}.weight", statistics.get(module)
            )
            put_rows(layer, row, quantized)
            with plainly(index, name, block) as execute:
                yield execute
        finally:
            kept.put_back(layer)

    return work


def stratified_choices(
    scores: Mapping[str, np.ndarray], bits: Sequence[int], count: int, seed: int
) -> list[Choice]:
    """Chooses `count` (module, channel, bits) to measure, spread over bit-widths.

    Within one bit-width they are spread over equal ranges of estimated rank.
    """
    generator = np.random.default_rng(seed)
    names = np.concatenate(
        [np.full(score.shape[1], index) for index, score in enumerate(scores.values())]
    )
    channels = np.concatenate([np.arange(score.shape[1]) for score in scores.values()])
    modules = list(scores)
    choices: list[Choice] = []
    for position, width in enumerate(bits):
        wanted = count // len(bits) + (position < count % len(bits))
        ranking = np.argsort(
            np.concatenate([score[position] for score in scores.values()]), kind="stable"
        )
        for stratum in np.array_split(ranking, min(wanted, len(ranking))) if wanted else []:
            pick = generator.choice(stratum)
            choices.append((modules[names[pick]], int(channels[pick]), int(width)))
    return choices


def agreement(
    choices: Sequence[Choice],
    estimated: np.ndarray,
    measured: np.ndarray,
    same_samples: np.ndarray | None = None,
) -> Agreement:
    """Compares estimated with measured scores, over all choices and per bit-width.

    same_samples: the estimate on the very samples that were measured, for the ratio; None takes
    `estimated`.
    """
    widths = np.array([bits for _, _, bits in choices])
    basis = estimated if same_samples is None else same_samples

    def compare(of: np.ndarray) -> tuple[int, float | None, float | None]:
        usable = of & (basis > 0)
        ratio = float(np.median(measured[usable] / basis[usable])) if usable.any() else None
        return int(of.sum()), spearman(estimated[of], measured[of]), ratio

    by_bits = {bits: compare(widths == bits) for bits in sorted(set(widths.tolist()))}
    return Agreement(*compare(np.full(widths.shape, True)), by_bits)


def look_up(
    scores: Mapping[str, np.ndarray], bits: Sequence[int], choices: Sequence[Choice]
) -> np.ndarray:
    """Returns the estimated score of each choice, float64 [len(choices)]."""
    position = {width: index for index, width in enumerate(bits)}
    return np.array(
        [scores[name][position[width], channel] for name, channel, width in choices],
        dtype=np.float64,
    )


def top_channels(scores: Mapping[str, np.ndarray], bits: Sequence[int], count: int) -> list[Choice]:
    """Returns every bit-width of the `count` channels with the largest mean estimate."""
    means = [score.mean(axis=0) for score in scores.values()]
    names = np.concatenate([np.full(mean.size, index) for index, mean in enumerate(means)])
    channels = np.concatenate([np.arange(mean.size) for mean in means])
    modules = list(scores)
    top = np.argsort(-np.concatenate(means), kind="stable")[:count]
    return [(modules[names[c]], int(channels[c]), int(width)) for c in top for width in bits]


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Computes Spearman's rank correlation, with ties at their mean rank.

    None when one side does not vary, as a single value does not.
    """
    ranks = []
    for values in (first, second):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[inverse])
    if min(np.ptp(rank) for rank in ranks) == 0:
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
