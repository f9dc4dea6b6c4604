"""The sensitivity that the released QVLA scripts compute, for all layers in one pass over the data.

Per layer, H = (2/N) sum X X^T over its inputs X; d_j^2 = [(H_{>=j,>=j})^-1]_jj from a Cholesky factor, as in GPTQ;
score[b, r] = sum_j (W_rj - Q_b(W)_rj)^2 / d_j^2. N counts forward calls (the leading dimension), not tokens. The
released script runs every sample once per layer; here hooks gather all layers at once, and layers that read the very
same tensor (q, k and v; gate and up) share one H.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from qvla_offline.progress import track
from qvla_offline.quantizers import released_rtn
from torch import Tensor, nn
from torch.nn import functional as F

from qvla_ros.errors import QvlaError

Forward = Callable[[Any], object]
_DAMPING_ATTEMPTS = 6


def hessian_scores(
    forward: Forward,
    targets: Mapping[str, nn.Module],
    samples: Sequence[Any],
    bits: Sequence[int],
    percdamp: float = 0.01,
    memory_bytes: float = 4e9,
) -> Iterator[dict[str, tuple[Tensor, bool]]]:
    """Yield, pass by pass over `samples`, {module: (scores float32 [len(bits), R], whether any sample reached it)}.

    forward: runs the model on one sample. memory_bytes bounds the Hessians held at a time (C^2 floats each); layers
    that do not fit wait for the next pass. A layer that is never reached has H = 0 and thus d = 1 / sqrt(1 + percdamp)
    throughout, as in the released script.
    """
    readers = shared_inputs(forward, targets, samples[0])
    sizes = {first: 4 * columns(targets[first]) ** 2 for first in readers}
    passes = split_by_memory(sizes, memory_bytes)
    print(f"hessian: {len(targets)} layers, {len(readers)} distinct inputs, {len(passes)} pass(es) over the samples")
    for number, group in enumerate(passes, 1):
        hessians = _accumulate(forward, {n: targets[n] for n in group}, samples, f"hessian {number}/{len(passes)}")
        finished = {}
        for first in group:
            diagonal = inverse_factor_diagonal(hessians.pop(first), percdamp, first)
            for name in readers[first]:
                finished[name] = (proxy_scores(flat_weight(targets[name]), diagonal, bits), True)
        yield finished
    reached = {name for members in readers.values() for name in members}
    unreached = {}
    for name in targets:
        if name not in reached:
            weight = flat_weight(targets[name])
            diagonal = torch.full((weight.shape[1],), (1 + percdamp) ** -0.5, device=weight.device)
            unreached[name] = (proxy_scores(weight, diagonal, bits), False)
    if unreached:
        yield unreached


def shared_inputs(forward: Forward, targets: Mapping[str, nn.Module], sample: Any) -> dict[str, list[str]]:
    """Modules that some forward reaches, grouped by the tensors that they read: {first module: [modules]}."""
    seen: dict[str, list[Tensor]] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: seen.setdefault(name, []).append(args[0]))
        for name, module in targets.items()
    ]
    _run_and_remove(forward, [sample], handles)
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name in targets:  # their order, not the order of execution
        if name in seen:
            geometry = name if isinstance(targets[name], nn.Conv2d) else "linear"
            groups.setdefault((geometry, *map(id, seen[name])), []).append(name)
    return {members[0]: members for members in groups.values()}


def split_by_memory(sizes: Mapping[str, float], memory_bytes: float) -> list[list[str]]:
    """Cut the names, in order, into groups whose sizes add up to at most `memory_bytes` (or that hold one name)."""
    groups: list[list[str]] = []
    used = 0.0
    for name, size in sizes.items():
        if not groups or used + size > memory_bytes:
            groups.append([])
            used = 0.0
        groups[-1].append(name)
        used += size
    return groups


class HessianSum:
    """Running H = (2/N) sum X X^T of one layer, float32 [C, C]; N counts the leading dimension of the inputs."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.count = 0
        self.total = torch.zeros((columns(module),) * 2, device=module.weight.device)

    def add(self, x: Tensor) -> None:
        """x: [C], [n, C] or [n, tokens, C] for a Linear (fewer than three dimensions count as one call)."""
        if x.ndim < 3:
            x = x.unsqueeze(0)
        new = x.shape[0]
        rows = _unfolded(self.module, x) if isinstance(self.module, nn.Conv2d) else x.reshape(-1, x.shape[-1]).T
        self.total *= self.count / (self.count + new)
        self.count += new
        rows = (2 / self.count) ** 0.5 * rows.float()
        self.total += rows @ rows.T


def inverse_factor_diagonal(hessian: Tensor, percdamp: float, name: str = "layer") -> Tensor:
    """d [C]: the diagonal of the upper Cholesky factor of the damped H^-1. Changes `hessian` in place.

    A zero on the diagonal (an input that is always zero) becomes 1; then percdamp times the mean of the diagonal is
    added. If H is still not positive definite in float32, the damping grows tenfold, with a warning.
    """
    diagonal = hessian.diagonal()
    diagonal[diagonal == 0] = 1.0
    damping = percdamp * float(diagonal.mean())
    for _ in range(_DAMPING_ATTEMPTS):
        diagonal += damping
        lower, failed = torch.linalg.cholesky_ex(hessian)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed:
                return upper.diagonal()
        damping = max(damping, 1e-8 * float(diagonal.mean())) * 10
        warnings.warn(f"{name}: H is not positive definite, damping raised to {damping:.3g}", stacklevel=2)
    raise QvlaError(f"hessian of {name}", "no Cholesky factor", "finite, positive inputs", "check the calibration data")


def proxy_scores(weight: Tensor, diagonal: Tensor, bits: Sequence[int]) -> Tensor:
    """float32 [len(bits), R]: squared rounding error of every row of `weight` [R, C], weighed by 1 / d^2."""
    wide = weight.float()
    importance = diagonal.square().clamp(min=1e-12)
    return torch.stack([((wide - released_rtn(wide, b)).square() / importance).sum(dim=1) for b in bits]).cpu()


def columns(module: nn.Module) -> int:
    """Inputs of one output channel: C of a Linear, channels times kernel area of a convolution."""
    return module.weight[0].numel()


def flat_weight(module: nn.Module) -> Tensor:
    """The weight as [R, C], a convolution flattened from dim 1, detached."""
    return module.weight.detach().flatten(1)


def _unfolded(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The patches that a convolution reads, [C * kh * kw, n * positions]."""
    patches = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    return patches.permute(1, 0, 2).flatten(1)


def _accumulate(
    forward: Forward, targets: Mapping[str, nn.Module], samples: Sequence[Any], title: str
) -> dict[str, Tensor]:
    sums = {name: HessianSum(module) for name, module in targets.items()}
    handles = [
        module.register_forward_pre_hook(lambda _, args, total=sums[name]: total.add(args[0].detach()))
        for name, module in targets.items()
    ]
    _run_and_remove(forward, track(samples, title), handles)
    return {name: total.total for name, total in sums.items()}


def _run_and_remove(forward: Forward, samples: Any, handles: list[Any]) -> None:
    try:
        with torch.no_grad():
            for sample in samples:
                forward(sample)
    finally:
        for handle in handles:
            handle.remove()
