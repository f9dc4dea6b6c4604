"""Shows scores of activations to a person: which layers need more bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from qvla_offline.sensitivity.exact import spearman


def score_table(scores: Mapping[str, Tensor], bits: Sequence[int]) -> str:
    """Returns a line a layer, the worst at the fewest bits first, then the sums.

    scores: {layer: [len(bits)]}. A share is that of the layer in the sum of its column.
    """
    total = torch.stack([score.double() for score in scores.values()]).sum(dim=0)
    first = int(np.argmin(bits))
    lines = [f"{'layer':<64}" + "".join(f"{b:>6} bits   share" for b in bits)]
    for name in sorted(scores, key=lambda n: -float(scores[n][first])):
        lines.append(f"{name:<64}" + _cells(scores[name].double(), total))
    return "\n".join([*lines, f"{'sum':<64}" + _cells(total, total)])


def agreement_line(
    scores: Mapping[str, Tensor], measured: Mapping[str, Tensor], bits: Sequence[int]
) -> str:
    """Returns how well the scores of all layers agree with measured ones, for each of `bits`."""
    parts = []
    for place, width in enumerate(bits):
        estimated = np.array([float(scores[name][place]) for name in scores])
        exact = np.array([float(measured[name][place]) for name in scores])
        rank = spearman(estimated, exact)
        ratio = float(np.median(exact / np.maximum(estimated, 1e-30)))
        shown = "-" if rank is None else f"{rank:.3f}"
        parts.append(f"{width} bits: rank correlation {shown}, measured / estimated {ratio:.3f}")
    return "; ".join(parts)


def _cells(values: Tensor, total: Tensor) -> str:
    shares = values / total.clamp(min=1e-300)
    pairs = zip(values.tolist(), shares.tolist(), strict=True)
    return "".join(f"{value:>11.3g} {share:>7.1%}" for value, share in pairs)
