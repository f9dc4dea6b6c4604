"""Trains one block after the other, each against its own float output on float inputs.

One block's weights, and what waits between blocks, are in memory at a time: for policies that do
not fit as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from qvla_offline.blockwise.passes import BlockPass, Blockwise, Execute, plainly
from qvla_offline.blockwise.schedule import Arguments
from qvla_offline.blockwise.weights import members_of
from qvla_offline.checkpoints.targets import QuantizableLayer
from qvla_offline.training.options import TrainingOptions
from qvla_offline.training.train import Trained, train
from qvla_offline.training.trainable import TrainableLayer

Quantize = Callable[[str, QuantizableLayer], TrainableLayer]


def train_by_block(
    policy: Blockwise,
    targets: Mapping[str, QuantizableLayer],
    quantize: Quantize,
    samples: Sequence[Any],
    validation: Sequence[int],
    options: TrainingOptions,
) -> dict[str, Trained]:
    """Trains the layers `targets` and returns {block: its best step}.

    quantize: makes the trainable layer of a module whose weight is there. validation: numbers of
    the samples that choose each block's best step; all others train. A block that is run several
    times a sample is trained on its first call.
    """
    members = members_of(policy.weights.blocks, targets)
    training = [number for number in range(len(samples)) if number not in set(validation)]
    groups = [[number] for number in training]
    found: dict[str, Trained] = {}
    with BlockPass(policy, samples) as run:

        @contextmanager
        def work(index: int, name: str, block: nn.Module) -> Iterator[Execute]:
            with plainly(index, name, block) as execute:
                yield execute
            names = [] if name in found else members.get(name, [])
            layers = {n: quantize(n, targets[n]) for n in names}
            if any(layer.factors for layer in layers.values()):
                lent = _LentBlock(name, block, layers, targets, run, index)
                with torch.enable_grad():
                    found[name] = train(layers, lent, groups, validation, options, title=None)

        run.forward("training scales by block", work)
    return found


class _LentBlock:
    """A block whose layers are lent the weights of those in training.

    Its error is the squared difference to its float output, as a share of that output's power.
    """

    def __init__(
        self,
        name: str,
        block: nn.Module,
        layers: Mapping[str, TrainableLayer],
        modules: Mapping[str, QuantizableLayer],
        run: BlockPass,
        index: int,
    ) -> None:
        self._block = block
        self._names = {n: n.removeprefix(f"{name}.") for n in layers}
        self._modules = modules
        self._layers = layers
        self._run = run
        self._index = index

    def loss(self, numbers: Sequence[int]) -> Tensor:
        """See Training."""
        return self._shares(numbers).sum()

    @torch.no_grad()
    def errors(self, numbers: Sequence[int]) -> Tensor:
        """See Training."""
        return self._shares(numbers).double().cpu()

    def _shares(self, numbers: Sequence[int]) -> Tensor:
        weights = self._weights()
        return torch.stack([self._share(number, weights) for number in numbers])

    def _share(self, number: int, weights: dict[str, Tensor]) -> Tensor:
        given: Arguments = self._run.arguments(number, self._index)
        found = functional_call(self._block, weights, given.args, given.kwargs)
        wanted = self._run.output(number, self._index)
        return (found - wanted).square().mean() / wanted.square().mean().clamp(min=1e-12)

    def _weights(self) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = {}
        for name, layer in self._layers.items():
            weights |= layer.lent_to(self._modules[name], self._names[name])
        return weights
