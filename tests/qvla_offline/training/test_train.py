"""The training loop on a toy: one layer that has to give what its float weight gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from qvla_offline.quantization.quantizer import quantize_layer
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.training.options import TrainingOptions
from qvla_offline.training.train import clearly_smaller, train
from qvla_offline.training.trainable import TrainableLayer
from qvla_ros.errors import QvlaError

ROWS = 12
BITS = 4
COLUMNS = 48
SAMPLES = 60
OPTIONS = TrainingOptions(steps=60, batch=10, learning_rate=0.01)


class Toy:
    """Squared differences of products; `wrong` samples want something else."""

    def __init__(self, wrong: frozenset[int] = frozenset()) -> None:
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(ROWS, COLUMNS, generator=generator)
        # inputs of few dimensions, so that little is to be learned
        base = torch.randn(6, COLUMNS, generator=generator)
        inputs = torch.randn(SAMPLES, 6, generator=generator) @ base
        self.inputs = inputs
        self.wanted = inputs @ weight.T
        self.wanted[sorted(wrong)] *= -1
        quantized = quantize_layer(weight, np.full(ROWS, BITS), QuantizationScheme(16))
        self.layers = {"layer": TrainableLayer(quantized, has_bias=True)}
        self.asked: list[int] = []

    def loss(self, numbers):
        self.asked += numbers
        return self._difference(numbers).sum()

    @torch.no_grad()
    def errors(self, numbers):
        return self._difference(numbers)

    def _difference(self, numbers):
        layer = self.layers["layer"]
        found = self.inputs[list(numbers)] @ layer.weight().T + layer.correction
        return (found - self.wanted[list(numbers)]).square().sum(dim=1).double()

    def run(self, options: TrainingOptions = OPTIONS):
        groups = [list(range(start, start + 5)) for start in range(0, 50, 5)]
        return train(self.layers, self, groups, range(50, 60), options)


def test_the_error_falls_and_the_best_step_is_returned():
    toy = Toy()
    trained = toy.run()
    assert trained.errors[trained.step] == min(trained.errors.values())
    assert trained.errors[trained.step] < 0.7 * trained.errors[0]


def test_training_that_only_does_harm_returns_the_untrained_layers():
    toy = Toy(wrong=frozenset(range(50)))
    before = toy.layers["layer"].trained()
    trained = toy.run()
    assert trained.step == 0
    assert trained.errors[max(trained.errors)] > trained.errors[0]
    assert torch.equal(trained.layers["layer"].scales[BITS], before.scales[BITS])
    assert torch.equal(trained.layers["layer"].bias_correction, before.bias_correction)


def test_a_mean_that_a_few_samples_decide_is_not_clearly_smaller():
    others = torch.ones(40, dtype=torch.float64)
    assert clearly_smaller(others * 0.9, others)
    assert not clearly_smaller(others, others)
    one_alone = others * 1.001
    one_alone[3] = 0.0
    assert one_alone.mean() < others.mean()
    assert not clearly_smaller(one_alone, others)
    assert clearly_smaller(one_alone[3:4], others[3:4])


def test_validation_samples_are_never_trained_on_and_all_others_are():
    toy = Toy()
    toy.run()
    assert set(toy.asked) == set(range(50))


def test_two_runs_give_the_same_numbers_and_another_seed_others():
    first = Toy().run().layers["layer"]
    second = Toy().run().layers["layer"]
    other = Toy().run(replace(OPTIONS, seed=1)).layers["layer"]
    assert torch.equal(first.scales[BITS], second.scales[BITS])
    assert torch.equal(first.bias_correction, second.bias_correction)
    assert not torch.equal(first.scales[BITS], other.scales[BITS])


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch": 0},
        {"max_samples": 0},
        {"seed": -1},
        {"validation_share": 0.0},
        {"validation_share": 1.0},
        {"learning_rate": 0.0},
        {"block_weight": -1.0},
        {"bias_learning_rate": float("nan")},
    ],
)
def test_options_that_cannot_be_are_refused(wrong):
    with pytest.raises(QvlaError, match=f"^training.{next(iter(wrong))}"):
        TrainingOptions(**wrong)
