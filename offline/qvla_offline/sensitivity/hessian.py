"""Computes the sensitivity of the released QVLA scripts, for all layers in one pass over the data.

Per layer, H = (2/N) sum X X^T over its inputs X; d_j^2 = [(H_{>=j,>=j})^-1]_jj from a Cholesky
factor, as in GPTQ; score[b, r] = sum_j (W_rj - Q_b(W)_rj)^2 / d_j^2. N counts forward calls (the
leading dimension), not tokens.

The released script runs every sample once per layer. Here all samples go through one block after
the other, and its layers are scored on the way. Layers that read the very same tensor (q, k and v;
gate and up) share one H.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qvla_offline.blockwise.passes import BlockPass, Blockwise, Execute
from qvla_offline.blockwise.schedule import Arguments
from qvla_offline.blockwise.taps import Tap, tapped
from qvla_offline.blockwise.weights import members_of
from qvla_offline.checkpoints.targets import QuantizableLayer, unexecuted_targets
from qvla_offline.checkpoints.vit import last_blocks_run
from qvla_offline.finite import require_finite
from qvla_offline.quantization.released import released_rtn
from qvla_offline.sensitivity.store import OVERFLOW
from qvla_ros.errors import QvlaError

Scores = dict[str, tuple[Tensor, bool]]
_DAMPING_ATTEMPTS = 6


def hessian_scores(
    policy: Blockwise,
    targets: Mapping[str, QuantizableLayer],
    samples: Sequence[Any],
    bits: Sequence[int],
    percdamp: float = 0.01,
) -> Iterator[Scores]:
    """Yields the scores of each block in turn, {module: (scores, reached)}.

    scores: float32 [len(bits), R]; reached: whether the layer has a part in the actions of any
    sample. The last block of each ViT has none, but it runs, and is scored by its inputs: timm
    drops what that block gives, after the released script has seen it. A layer that never runs has
    H = 0 and thus d = 1 / sqrt(1 + percdamp) throughout, as in the released script. The Hessians of
    one block are in memory at a time: C^2 floats for each tensor of width C that its layers read.
    """
    members = members_of(policy.weights.blocks, targets)
    model = getattr(policy.run, "__self__", policy.run)  # a method of the model, or the model
    idle = unexecuted_targets(model) if isinstance(model, nn.Module) else set()
    gathering = _HessianScoring(members, targets, bits, percdamp, idle)
    whole = replace(policy, _schedule=None)  # with those blocks, another schedule
    with _last_blocks_run(model), BlockPass(whole, samples) as run:
        gathering.remaining = Counter(call.block for call in run.schedule.calls)
        for _ in run.steps("hessian", gathering.at_block):
            if gathering.finished:
                yield gathering.finished
                gathering.finished = {}
    for block, names in members.items():
        unreached = [name for name in names if name not in gathering.scored]
        if unreached:
            with policy.weights.loaded(block):
                yield {
                    name: (_unreached_scores(targets[name], bits, percdamp), False)
                    for name in unreached
                }


def _last_blocks_run(model: object) -> AbstractContextManager[None]:
    return last_blocks_run(model) if isinstance(model, nn.Module) else nullcontext()


class _HessianScoring:
    """The Hessians of the block that runs, and the scores of its layers once it has run.

    A Hessian is kept under the first layer that reads its tensor. idle: the layers without a part
    in the actions.
    """

    def __init__(
        self,
        members: Mapping[str, list[str]],
        targets: Mapping[str, QuantizableLayer],
        bits: Sequence[int],
        percdamp: float,
        idle: Collection[str] = (),
    ) -> None:
        self.idle = idle
        self.members = members
        self.targets = targets
        self.bits = bits
        self.percdamp = percdamp
        self.remaining: Counter[str] = Counter()  # calls of each block still to come
        self.finished: Scores = {}
        self.scored: set[str] = set()
        self._sums: dict[str, HessianSum] = {}
        self._readers: dict[str, list[str]] = {}

    @contextmanager
    def at_block(self, index: int, name: str, block: nn.Module) -> Iterator[Execute]:
        layers = {n: self.targets[n] for n in self.members.get(name, [])}

        def execute(sample: int, arguments: Arguments) -> Tensor:
            with tapped(layers) as taps:
                output = arguments.call(block)
            for first, group in shared_inputs(taps).items():
                if first not in self._sums:
                    self._sums[first] = HessianSum(layers[first])
                    self._readers[first] = group
                for tap in taps:
                    if tap.name == first:
                        self._sums[first].add(tap.input)
            require_finite(f"output of {name or 'the policy'}, sample {sample}", output, OVERFLOW)
            return output

        yield execute
        self.remaining[name] -= 1
        if not self.remaining[name]:
            self._finish()

    def _finish(self) -> None:
        for first in list(self._sums):
            require_finite(f"hessian of {first}", self._sums[first].total, OVERFLOW)
            diagonal = inverse_factor_diagonal(self._sums.pop(first).total, self.percdamp, first)
            for name in self._readers.pop(first):
                scores = proxy_scores(flat_weight(self.targets[name]), diagonal, self.bits)
                require_finite(f"sensitivity of {name}", scores, OVERFLOW)
                self.finished[name] = (scores, name not in self.idle)
        self.scored |= set(self.finished)


def shared_inputs(taps: Sequence[Tap]) -> dict[str, list[str]]:
    """Groups the layers that ran by the tensors that they read: {first layer: [layers]}.

    Each convolution is a group by itself.
    """
    seen: dict[str, list[Tap]] = {}
    for tap in taps:
        seen.setdefault(tap.name, []).append(tap)
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, own in seen.items():
        geometry = name if isinstance(own[0].module, nn.Conv2d) else "linear"
        groups.setdefault((geometry, *(id(tap.input) for tap in own)), []).append(name)
    return {members[0]: members for members in groups.values()}


class HessianSum:
    """The running sum H = (2/N) sum X X^T of one layer, float32 [C, C].

    N counts the leading dimension of the inputs.
    """

    def __init__(self, module: QuantizableLayer) -> None:
        self.module = module
        self.count = 0
        self.total = torch.zeros((columns(module),) * 2, device=module.weight.device)

    def add(self, x: Tensor) -> None:
        """Adds the inputs of one call.

        x: [C], [n, C] or [n, tokens, C] for a Linear (fewer than three dimensions count as one
        call).
        """
        if x.ndim < 3:
            x = x.unsqueeze(0)
        new = x.shape[0]
        rows = (
            _unfolded(self.module, x)
            if isinstance(self.module, nn.Conv2d)
            else x.reshape(-1, x.shape[-1]).T
        )
        kept = self.count / (self.count + new)
        self.count += new
        rows = rows.float()
        self.total.addmm_(rows, rows.T, beta=kept, alpha=2 / self.count)


def inverse_factor_diagonal(hessian: Tensor, percdamp: float, name: str = "layer") -> Tensor:
    """Returns d [C], the diagonal of the upper Cholesky factor of the damped H^-1.

    Changes `hessian` in place.
    A zero on the diagonal (an input that is always zero) becomes 1; then percdamp times the mean of
    the diagonal is added. If H is still not positive definite in float32, the damping grows
    tenfold, with a warning.

    With H = R R^T and R upper triangular, H^-1 = (R^-1)^T R^-1, so d = 1 / diag(R). R is the
    Cholesky factor of H taken from its last input to its first: one factor in place of two and an
    inverse.
    """
    diagonal = hessian.diagonal()
    diagonal[diagonal == 0] = 1.0
    damping = percdamp * float(diagonal.mean())
    for _ in range(_DAMPING_ATTEMPTS):
        diagonal += damping
        backwards, failed = torch.linalg.cholesky_ex(hessian.flip(0, 1))
        if not failed:
            return 1 / backwards.diagonal().flip(0)
        damping = max(damping, 1e-8 * float(diagonal.mean())) * 10
        warnings.warn(
            f"{name}: H is not positive definite, damping raised to {damping:.3g}", stacklevel=2
        )
    raise QvlaError(
        f"hessian of {name}",
        "no Cholesky factor",
        "finite, positive inputs",
        "check the calibration data",
    )


def proxy_scores(weight: Tensor, diagonal: Tensor, bits: Sequence[int]) -> Tensor:
    """Scores every row of `weight` [R, C] by its squared rounding error, weighed by 1 / d^2.

    Returns float32 [len(bits), R].
    """
    wide = weight.float()
    weights = 1 / diagonal.square().clamp(min=1e-12)
    return torch.stack([(wide - released_rtn(wide, b)).square() @ weights for b in bits]).cpu()


def columns(module: QuantizableLayer) -> int:
    """Counts the inputs of one output channel.

    C of a Linear; channels times kernel area of a convolution.
    """
    return module.weight[0].numel()


def flat_weight(module: QuantizableLayer) -> Tensor:
    """Returns the weight as [R, C], a convolution flattened from dim 1, detached."""
    return module.weight.detach().flatten(1)


def _unfolded(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The patches that a convolution reads, [C * kh * kw, n * positions]."""
    # the policies' convolutions give their padding in pixels
    assert not isinstance(conv.padding, str)
    patches = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    return patches.permute(1, 0, 2).flatten(1)


def _unreached_scores(module: QuantizableLayer, bits: Sequence[int], percdamp: float) -> Tensor:
    weight = flat_weight(module)
    return proxy_scores(
        weight, torch.full((weight.shape[1],), (1 + percdamp) ** -0.5, device=weight.device), bits
    )
