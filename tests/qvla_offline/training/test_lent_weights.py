"""The loss of a policy that is lent weights: actions and outputs of blocks against float ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qvla_offline.calibration import read_calibration
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.gates import uniform
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.training.lent_weights import LentWeights
from qvla_offline.training.run import Layers
from qvla_ros.errors import QvlaError
from tests.support.observations import write_observations


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lent")
    checkpoint = load_checkpoint(write_random_checkpoint(folder / "tiny"))
    samples = read_calibration(write_observations(folder / "data", 4, seed=5), checkpoint)
    return checkpoint.model, samples


def layers_of(model, bits: int):
    rows = {name: m.weight.shape[0] for name, m in quantization_targets(model).items()}
    layers = Layers(uniform(rows, bits), QuantizationScheme(16))
    return {name: layers.quantized(name, m) for name, m in layers.executed(model).items()}


def test_the_error_is_that_of_the_policy_with_the_restored_weights(place):
    model, samples = place
    layers = layers_of(model, 4)
    found = LentWeights(model, layers, samples, block_weight=0.0)
    with torch.no_grad():
        wanted = [model(sample) for sample in samples]
        targets = quantization_targets(model)
        before = {name: targets[name].weight.data for name in layers}
        for name, layer in layers.items():
            weight = layer.layer.dequantize()
            targets[name].weight.data = weight.reshape(targets[name].weight.shape)
        moved = [model(sample) for sample in samples]
        for name, weight in before.items():
            targets[name].weight.data = weight
    errors = [float((a - b).square().sum()) for a, b in zip(moved, wanted, strict=True)]
    wanted_errors = [errors[number] for number in (0, 2, 1)]
    assert found.errors([0, 2, 1]).tolist() == pytest.approx(wanted_errors, rel=1e-3)
    assert found.loss([0, 2, 1]).item() == pytest.approx(sum(errors[:3]), rel=1e-3)


def test_blocks_add_to_the_loss_and_both_vanish_with_the_error(place):
    model, samples = place
    coarse = layers_of(model, 2)
    alone = LentWeights(model, coarse, samples, block_weight=0.0)
    both = LentWeights(model, coarse, samples, block_weight=10.0)
    assert both.loss([0, 1]).item() > alone.loss([0, 1]).item() > 0
    assert torch.equal(both.errors([0, 1]), alone.errors([0, 1]))
    fine = LentWeights(model, layers_of(model, 8), samples, block_weight=10.0)
    assert fine.loss([0, 1]).item() < 0.05 * both.loss([0, 1]).item()


def test_gates_without_scales_leave_nothing_to_train(place):
    with pytest.raises(QvlaError, match="^gates: got no row of 2 to 8 bits"):
        layers_of(place[0], 16)
    assert np.all([layer.factors for layer in layers_of(place[0], 8).values()])
