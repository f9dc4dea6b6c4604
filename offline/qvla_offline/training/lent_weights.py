"""The errors of a policy whose layers are lent the weights of those in training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from qvla_offline.blockwise.weights import blocks_of
from qvla_offline.checkpoints.model import PolicyInputs, VisionLanguageModel
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.error.held_out import batches
from qvla_offline.sensitivity.prepare import joined
from qvla_offline.training.trainable import TrainableLayer

TOGETHER = 4  # samples with prompts of one length that are run together


class LentWeights:
    """A policy with layers in training, beside itself in float, on a set of samples.

    model: the float policy. layers: {target module: the layer in its place}. samples: prepared, on
    the device of the model. block_weight: of the outputs of the blocks in `loss`.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        layers: Mapping[str, TrainableLayer],
        samples: Sequence[PolicyInputs],
        block_weight: float,
    ) -> None:
        self._policy = _Smooth(model)
        self._targets = {n: m for n, m in quantization_targets(model).items() if n in layers}
        self._layers = layers
        self._samples = samples
        self._blocks = list(blocks_of(model).values())
        self._block_weight = block_weight
        self._float_actions: dict[int, Tensor] = {}  # of samples that errors were asked of

    def loss(self, numbers: Sequence[int]) -> Tensor:
        """The sum over samples of what training lowers, differentiable in the layers.

        It is the squared difference of actions, and `block_weight` times the mean over blocks of
        the squared difference of their outputs as a share of their power. The actions are few
        numbers a sample; the outputs are many, so that fewer samples tell more of the same.
        """
        total = torch.zeros((), dtype=torch.float64)
        for _, inputs in self._batches(numbers):
            with torch.no_grad(), recorded(self._blocks) as wanted:
                wanted_actions = self._policy(inputs)
            with recorded(self._blocks) as found:
                actions = functional_call(self._policy, self._weights(), (inputs,))
            shares = [
                (a - b).square().mean() / b.square().mean().clamp(min=1e-12)
                for a, b in zip(found, wanted, strict=True)
                if a.requires_grad
            ]
            of_blocks = len(inputs.input_ids) * torch.stack(shares).mean()
            lost = (actions - wanted_actions).square().sum() + self._block_weight * of_blocks
            total = total + lost.double().cpu()
        return total

    @torch.no_grad()
    def errors(self, numbers: Sequence[int]) -> Tensor:
        """The squared difference of actions of each sample, float64 [n], on the CPU."""
        found: dict[int, Tensor] = {}
        weights = self._weights()
        for places, inputs in self._batches(numbers):
            new = [place for place in places if place not in self._float_actions]
            if new:
                self._float_actions |= dict(zip(places, self._policy(inputs), strict=True))
            wanted = torch.stack([self._float_actions[place] for place in places])
            actions = functional_call(self._policy, weights, (inputs,))
            of_samples = (actions - wanted).double().square().flatten(1).sum(dim=1).cpu()
            found |= dict(zip(places, of_samples, strict=True))
        return torch.stack([found[number] for number in numbers])

    def _batches(self, numbers: Sequence[int]) -> Iterator[tuple[list[int], PolicyInputs]]:
        for places in batches([self._samples[number] for number in numbers], TOGETHER):
            group = [numbers[place] for place in places]
            yield group, joined([self._samples[number] for number in group])

    def _weights(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, layer in self._layers.items():
            found |= layer.lent_to(self._targets[name], f"model.{name}")
        return found


@contextmanager
def recorded(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Yields a list to which the output of each block is added as it runs."""
    outputs: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda module, given, output: outputs.append(output))
        for block in blocks
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


class _Smooth(nn.Module):
    """A policy whose forward is `smooth_actions`, so that weights can be lent to it."""

    def __init__(self, model: VisionLanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: PolicyInputs) -> Tensor:
        return self.model.smooth_actions(inputs)
