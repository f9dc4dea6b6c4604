"""Hessians of the inputs of every layer, plain and weighed by the gradients of the actions.

The samples go forward through one block after the other, then random signs of the actions backward,
each block run once more with its weights at hand, as for the action sensitivities. So the weights
and Hessians of one block are in memory at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qvla_offline.blockwise.passes import BlockPass, Blockwise, Pull
from qvla_offline.blockwise.schedule import Arguments
from qvla_offline.blockwise.taps import Tap, pull_through
from qvla_offline.blockwise.weights import members_of
from qvla_offline.checkpoints.targets import QuantizableLayer
from qvla_offline.finite import require_finite
from qvla_offline.quantization.quantizer import LayerStatistics
from qvla_offline.sensitivity.action import Probing, random_signs
from qvla_offline.sensitivity.hessian import columns
from qvla_offline.sensitivity.store import OVERFLOW

Save = Callable[[str, Mapping[str, LayerStatistics]], None]  # (block, {module: statistics})


def gather_statistics(
    policy: Blockwise,
    targets: Mapping[str, QuantizableLayer],
    samples: Sequence[Any],
    probing: Probing,
    save: Save,
    finished: Collection[str] = (),
) -> None:
    """Calls `save` with the statistics of each block as soon as they are whole.

    The last block comes first; a block has `targets` in it.

    policy: one sample -> normalised actions, differentiable. finished: blocks to leave out. A layer
    that no sample reaches is left out as well. Raises QvlaError naming the layer whose inputs are
    not finite.
    """
    members = {
        block: names
        for block, names in members_of(policy.weights.blocks, targets).items()
        if block not in finished
    }
    work = _BackwardGathering(members, targets, save)
    with BlockPass(policy, samples, keep=True) as run:
        work.remaining = Counter(call.block for call in run.schedule.calls)
        run.forward("statistics, forward")
        run.backward(
            "statistics, backward",
            members,
            lambda sample, actions: random_signs(actions, sample, probing),
            work.pulling,
        )


@dataclass
class _Sums:
    """Running sums of one layer."""

    count: int
    hessian: Tensor
    inputs: Tensor
    weighted: Tensor
    magnitudes: Tensor
    largest: Tensor

    @classmethod
    def of(cls, module: QuantizableLayer) -> _Sums:
        inputs = columns(module)
        square = torch.zeros((inputs, inputs), device=module.weight.device)
        row = square[0].clone
        return cls(0, square, row(), square.clone(), row(), row())

    def add(self, tap: Tap, gradients: Sequence[Tensor]) -> None:
        """One execution of the layer. gradients: of every probe, at its output."""
        rows = input_rows(tap.module, tap.input.detach()).float()
        felt = torch.stack([output_rows(tap.module, g).square().mean(dim=1) for g in gradients])
        self.count += len(rows)
        self.inputs += rows.sum(dim=0)
        self.hessian += rows.T @ rows
        self.weighted += rows.T @ (rows * felt.mean(dim=0)[:, None])
        self.magnitudes += rows.abs().sum(dim=0)
        self.largest = torch.maximum(self.largest, rows.abs().amax(dim=0))

    def statistics(self, name: str) -> LayerStatistics:
        for sums in (self.hessian, self.weighted):
            require_finite(f"hessian of {name}", sums, OVERFLOW)
        count = max(self.count, 1)
        return LayerStatistics(
            self.count,
            self.hessian.cpu(),
            (self.inputs / count).cpu(),
            self.weighted.cpu(),
            (self.magnitudes / count).cpu(),
            self.largest.cpu(),
        )


class _BackwardGathering:
    """Gathers the Hessians of each block on the way back through the network."""

    def __init__(
        self, members: Mapping[str, list[str]], targets: Mapping[str, QuantizableLayer], save: Save
    ) -> None:
        self.members = members
        self.targets = targets
        self.save = save
        self.remaining: Counter[str] = Counter()  # calls of each block still to come
        self._sums: dict[str, _Sums] = {}

    @contextmanager
    def pulling(self, index: int, name: str, block: nn.Module) -> Iterator[Pull]:
        """Runs the block again, takes the probes through it, and adds up its layers' inputs."""
        layers = {n: self.targets[n] for n in self.members.get(name, [])}

        def pull(sample: int, arguments: Arguments, cotangents: Tensor) -> list[tuple[Tensor, ...]]:
            of_inputs, of_taps = pull_through(block, arguments, layers, cotangents)
            for tap, gradients in of_taps:
                if tap.name not in self._sums:
                    self._sums[tap.name] = _Sums.of(tap.module)
                self._sums[tap.name].add(tap, gradients)
            return of_inputs

        yield pull
        self.remaining[name] -= 1
        if layers and not self.remaining[name]:
            reached = [n for n in layers if n in self._sums]
            self.save(name, {n: self._sums.pop(n).statistics(n) for n in reached})


def input_rows(module: QuantizableLayer, x: Tensor) -> Tensor:
    """Returns what a layer multiplies its weight with, [tokens, C]; patches of a convolution."""
    if not isinstance(module, nn.Conv2d):
        return x.reshape(-1, x.shape[-1])
    assert not isinstance(module.padding, str)  # the policies give their padding in pixels
    patches = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)
    return patches.transpose(1, 2).flatten(0, 1)


def output_rows(module: QuantizableLayer, y: Tensor) -> Tensor:
    """A layer's output, or a gradient of its shape, [tokens, R] in the order of `input_rows`."""
    if not isinstance(module, nn.Conv2d):
        return y.reshape(-1, y.shape[-1])
    return y.flatten(2).transpose(1, 2).flatten(0, 1)
