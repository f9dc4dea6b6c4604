"""Sensitivity in the space of the actions: S(c, b) = E ||A(w_c + dw_cb) - A(w)||^2, to first order.

A is the vector of normalised actions [K * A], w_c the weights of output channel c, dw_cb what quantizing them to b bits
changes (with the scheme that export uses). With J the Jacobian of A, ||J dw||^2 = E_r (dw . grad_w <r, A>)^2 for random
signs r, so one forward pass and a few backward passes per sample score every channel at every bit-width at once.
Units: squared normalised actions, summed over the chunk, averaged over samples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from qvla_offline.progress import track
from qvla_offline.quantizers import QuantizationScheme, reconstruct_rows
from qvla_offline.sensitivity.hessian import flat_weight, shared_inputs, split_by_memory
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor, nn

from qvla_ros.atomic import atomic_file
from qvla_ros.errors import QvlaError

Actions = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Probing:
    """How the expectation is taken. probes: backward passes per sample; memory_bytes bounds the weight errors held."""

    bits: tuple[int, ...] = (0, 2, 4, 8)
    probes: int = 4
    seed: int = 0
    memory_bytes: float = 4e9


def action_scores(
    actions: Actions,
    targets: Mapping[str, nn.Module],
    samples: Sequence[Any],
    scheme: QuantizationScheme,
    probing: Probing,
    partial: PartialSums | None = None,
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """({module: scores float32 [len(bits), R]}, names of the modules that no sample reached, whose scores are 0).

    actions: one sample -> normalised actions, differentiable. partial: where finished samples are kept, so that an
    interrupted run goes on. Raises QvlaError naming the layers if a module ran and yet moves no action: that is either
    a part of the network that does nothing or a broken gradient, and a zero score would hide it.
    """
    reached = {name for members in shared_inputs(actions, targets, samples[0]).values() for name in members}
    sizes = {n: 4 * len(probing.bits) * targets[n].weight.numel() for n in targets if n in reached}
    passes = split_by_memory(sizes, probing.memory_bytes)
    print(f"action: {len(sizes)} of {len(targets)} layers run, {len(passes)} pass(es) over {len(samples)} samples")
    sums, done = partial.load() if partial else ({}, 0)
    for number, group in enumerate(passes):
        first = done - number * len(samples)
        if first >= len(samples):
            continue
        layers = {name: targets[name] for name in group}
        errors = {name: weight_errors(module, probing.bits, scheme) for name, module in layers.items()}
        remaining = range(max(first, 0), len(samples))
        for index in track(remaining, f"action {number + 1}/{len(passes)}", total=len(remaining)):
            generator = torch.Generator().manual_seed(probing.seed * 1_000_003 + index)
            for name, squares in sample_squares(
                actions, layers, errors, samples[index], probing.probes, generator
            ).items():
                sums[name] = sums[name] + squares if name in sums else squares
            if partial:
                partial.save(sums, number * len(samples) + index + 1)
    scores = {name: (sums[name] / (len(samples) * probing.probes)).T.contiguous().cpu() for name in sizes}
    silent = [name for name, score in scores.items() if not score.any()]
    if silent:
        raise QvlaError(
            "sensitivity",
            f"{len(silent)} layers that run but move no action: {', '.join(silent[:3])}",
            "a non-zero score in every layer that runs",
            "check that gradients reach them, or leave them out of the model",
        )
    unreached = tuple(name for name in targets if name not in reached)
    zeros = {n: torch.zeros(len(probing.bits), targets[n].weight.shape[0]) for n in unreached}
    return {name: (scores | zeros)[name] for name in targets}, unreached


def weight_errors(module: nn.Module, bits: Sequence[int], scheme: QuantizationScheme) -> Tensor:
    """dw [R, len(bits), C] in the dtype of the weight: what each bit-width changes."""
    weight = flat_weight(module)
    wide = weight.float()
    return torch.stack([reconstruct_rows(wide, b, scheme) - wide for b in bits], dim=1).to(weight.dtype)


def sample_squares(
    actions: Actions,
    layers: Mapping[str, nn.Module],
    errors: Mapping[str, Tensor],
    sample: Any,
    probes: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Sum over probes of (dw . grad)^2, float32 [R, len(bits)] per layer, for one sample."""
    weights = [module.weight for module in layers.values()]
    previous = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            output = actions(sample)
        squares = {name: torch.zeros(error.shape[:2], device=error.device) for name, error in errors.items()}
        for probe in range(probes):
            signs = torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1
            grads = torch.autograd.grad(
                output, weights, signs, retain_graph=probe + 1 < probes, allow_unused=True, materialize_grads=True
            )
            for (name, error), grad in zip(errors.items(), grads, strict=True):
                moved = torch.bmm(error, grad.flatten(1).unsqueeze(-1)).squeeze(-1)
                squares[name] += moved.float().square()
    finally:
        for weight, flag in zip(weights, previous, strict=True):
            weight.requires_grad_(flag)
    return squares


class PartialSums:
    """Sums over the samples done so far, kept in a file beside the result until that is written."""

    def __init__(self, path: Path, fingerprint: str, resume: bool) -> None:
        """fingerprint: hash of all that the numbers depend on; a file with another one is not continued."""
        self.path, self.fingerprint, self.resume = path, fingerprint, resume

    def load(self) -> tuple[dict[str, Tensor], int]:
        """({module: sums}, samples done over all passes); nothing unless resuming."""
        if not self.resume or not self.path.is_file():
            return {}, 0
        with safe_open(self.path, "pt") as file:
            metadata = json.loads(file.metadata()["qvla_partial"])
        if metadata["fingerprint"] != self.fingerprint:
            raise QvlaError(
                str(self.path),
                "sums of another run",
                "the same checkpoint, calibration, bits, scheme, probes and seed",
                "delete it, or run without --resume",
            )
        print(f"resuming after {metadata['done']} samples")
        return load_file(self.path), metadata["done"]

    def save(self, sums: Mapping[str, Tensor], done: int) -> None:
        metadata = {"qvla_partial": json.dumps({"fingerprint": self.fingerprint, "done": done})}
        with atomic_file(self.path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in sums.items()}, temporary, metadata)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
