"""What all rows of one bit-width do to the actions together, against the whole model run anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from qvla_offline.blockwise.passes import Blockwise
from qvla_offline.quantization.quantizer import reconstruct_rows
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.joint import joint_errors

SCHEME = QuantizationScheme(16)


class InBlocks(nn.Module):
    """The layers of a Sequential, each a block of its own."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def __getitem__(self, index: int) -> nn.Module:
        return self.layers[index]


@pytest.mark.parametrize("kind", [nn.Sequential, InBlocks])
def test_joint_errors_are_those_of_all_rows_of_a_width_and_leave_the_weights_alone(kind):
    torch.manual_seed(0)
    policy = kind(nn.Linear(20, 6), nn.Tanh(), nn.Linear(6, 3)).requires_grad_(False)
    targets = {"0": policy[0], "2": policy[2]}
    layers = {"0": np.array([0, 0, 2, 4, 16, 8]), "2": np.array([4, 0, 16])}
    samples = [torch.randn(1, 20) for _ in range(3)]
    before = {name: module.weight.clone() for name, module in targets.items()}
    by_bits, whole = joint_errors(Blockwise.resident(policy), targets, samples, layers, SCHEME)
    assert all(torch.equal(module.weight, before[name]) for name, module in targets.items())
    assert list(by_bits) == [0, 2, 4, 8]

    def expected(widths) -> float:
        weights = {}
        for name, module in targets.items():
            weight = module.weight.clone()
            for row, b in enumerate(layers[name]):
                if b in widths:
                    weight[row] = reconstruct_rows(module.weight[row : row + 1], int(b), SCHEME)[0]
            weights[("" if kind is nn.Sequential else "layers.") + f"{name}.weight"] = weight
        moved = [torch.func.functional_call(policy, weights, (s,)) - policy(s) for s in samples]
        return float(torch.stack(moved).square().sum() / len(samples))

    for b, error in by_bits.items():
        assert error == pytest.approx(expected({b}), rel=1e-4)
    assert whole == pytest.approx(expected({0, 2, 4, 8}), rel=1e-4)


def test_a_batch_counts_as_its_samples_and_what_stays_at_sixteen_bits_costs_nothing() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(20, 3).requires_grad_(False)
    samples = [torch.randn(1, 20) for _ in range(4)]
    targets = {"": layer}
    policy = Blockwise.resident(layer)
    layers = {"": np.array([4, 16, 4])}
    single = joint_errors(policy, targets, samples, layers, SCHEME)
    batched = joint_errors(policy, targets, [torch.cat(samples)], layers, SCHEME)
    assert list(single[0]) == [4]
    assert single[0][4] == pytest.approx(batched[0][4], rel=1e-5)
    assert single[1] == single[0][4] > 0
    assert joint_errors(policy, targets, samples, {"": np.full(3, 16)}, SCHEME) == ({}, 0.0)
