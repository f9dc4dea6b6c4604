"""Rounded inputs of layers: how they are rounded, which layers, and what it does to the actions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qvla_offline.activations.options import ActivationScheme
from qvla_offline.activations.rounding import InputRounding, input_roundings, rounded
from qvla_offline.activations.rounding import rounding_inputs as rounding
from qvla_offline.activations.scores import activation_scores, measured_activation_scores
from qvla_offline.activations.table import agreement_line, score_table
from qvla_offline.blockwise.passes import Blockwise
from qvla_offline.blockwise.weights import ResidentWeights
from qvla_offline.quantization.quantizer import LayerStatistics
from qvla_offline.sensitivity.action import Probing
from qvla_offline.sensitivity.exact import spearman
from qvla_ros.errors import QvlaError

LAYERS = {"a.fc1": nn.Linear(8, 6), "a.fc2": nn.Linear(6, 8), "patch": nn.Conv2d(3, 4, 2, 2)}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([4, 8]), st.floats(-3, 3))
def test_every_token_is_rounded_to_the_nearest_of_its_own_codes(seed, bits, exponent):
    x = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(seed)) * 10.0**exponent
    found = rounded(x, bits, None, dims=(-1,))
    step = x.abs().amax(dim=-1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert ((found - x).abs() <= 0.5001 * step).all()
    assert torch.allclose(found / step, (found / step).round(), atol=1e-3)
    again = rounded(x[:1, 2:3], bits, None, dims=(-1,))
    assert torch.equal(again, found[:1, 2:3])


def test_a_limit_clips_and_zeros_stay_zeros():
    x = torch.tensor([[0.0, 1.0, -3.0]])
    assert rounded(x, 4, 1.0, (-1,)).tolist() == [[0.0, 1.0, -1.0]]
    assert rounded(torch.zeros(2, 3), 4, None, (-1,)).tolist() == [[0.0] * 3] * 2
    assert rounded(x, 16, 1.0, (-1,)) is x


def test_scaled_inputs_are_rounded_as_they_are_scaled():
    x = torch.tensor([[100.0, 1.3]])
    scales = torch.tensor([100.0, 1.0])
    plain = InputRounding(4)(LAYERS["a.fc1"], x)
    scaled = InputRounding(4, input_scales=scales)(LAYERS["a.fc1"], x)
    assert plain.tolist() == [[100.0, 0.0]]
    assert torch.allclose(scaled, torch.tensor([[1.3 * 5 / 7 * 100, 1.3]]))


def test_rules_give_layers_more_bits_and_16_leaves_them_out():
    scheme = ActivationScheme(4, activation_layer_bits="*.fc2>=8,patch=16")
    assert scheme.widths(LAYERS) == {"a.fc1": 4, "a.fc2": 8, "patch": 16}
    assert set(input_roundings(scheme, LAYERS, {}, {})) == {"a.fc1", "a.fc2"}
    with pytest.raises(
        QvlaError, match=r"^activation_layer_bits: got b\.\*=8, whose pattern is no"
    ):
        ActivationScheme(4, activation_layer_bits="b.*=8").widths(LAYERS)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"activation_bits": 5}, "activation_bits"),
        ({"activation_layer_bits": "a=2"}, "activation_bits"),
        ({"activation_layer_bits": "a"}, "activation_layer_bits"),
        ({"activation_scaling": "best"}, "activation_scaling"),
    ],
)
def test_a_scheme_that_is_none_is_refused_by_its_key(wrong, key):
    with pytest.raises(QvlaError, match=f"^{key}: got"):
        ActivationScheme(**wrong)


def test_static_scales_are_those_of_the_calibration_samples():
    scheme = ActivationScheme(8, "static")
    statistics = {"a.fc1": LayerStatistics(1, input_maximum=torch.arange(8.0))}
    scales = {"a.fc1": torch.full((8,), 2.0)}
    found = input_roundings(scheme, LAYERS, statistics, scales)
    assert list(found) == ["a.fc1"]  # the others were never reached
    assert found["a.fc1"].limit == 3.5
    with pytest.raises(QvlaError, match=r"^activation_scaling: got static without statistics"):
        input_roundings(scheme, LAYERS, {}, {})
    with pytest.raises(QvlaError, match=r"^statistics of a\.fc1: got no input_maximum"):
        input_roundings(scheme, LAYERS, {"a.fc1": LayerStatistics(1)}, {})


def test_inputs_are_rounded_while_the_context_lasts_and_broken_ones_are_named():
    layer = LAYERS["a.fc1"]
    x = torch.randn(2, 3, 8)
    expected = layer(rounded(x, 4, None, (-1,)))
    before = layer(x)
    with rounding(LAYERS, {"a.fc1": InputRounding(4)}):
        assert torch.equal(layer(x), expected)
        with pytest.raises(QvlaError, match=r"^inputs of a\.fc1: got NaN"):
            layer(x * float("nan"))
    assert torch.equal(layer(x), before)


def test_an_image_has_one_scale_before_a_convolution():
    x = torch.randn(2, 3, 4, 4)
    x[1] *= 100.0
    found = InputRounding(8)(LAYERS["patch"], x)
    assert torch.equal(found[:1], InputRounding(8)(LAYERS["patch"], x[:1]))
    assert len(found[0].unique()) <= 255


class Chain(nn.Module):
    """Three blocks; the second is called twice, and one layer is never called."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16)) for _ in range(3)
        )
        self.idle = nn.ModuleList([nn.Linear(16, 16)])
        for parameter in self.parameters():
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.blocks[0](x)
        x = x + self.blocks[1](x)
        x = x + self.blocks[1](x)
        return (x + self.blocks[2](x))[:, :2]


def test_scores_of_activations_agree_with_measured_ones():
    model = Chain().eval().requires_grad_(False)
    policy = Blockwise(model, ResidentWeights(model))
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    generator = torch.Generator().manual_seed(1)
    samples = [torch.randn(1, 3, 16, generator=generator) for _ in range(24)]
    ways = [dict.fromkeys(layers, InputRounding(bits)) for bits in (4, 8)]
    scores = activation_scores(policy, layers, samples, ways, Probing((), probes=16))
    assert set(scores) == set(layers) - {"idle.0"}
    reached = {name: layers[name] for name in scores}
    measured = measured_activation_scores(policy, reached, samples, ways)
    for place, tolerance in ((0, 0.5), (1, 0.2)):
        estimated = np.array([float(scores[name][place]) for name in scores])
        exact = np.array([float(measured[name][place]) for name in scores])
        assert spearman(estimated, exact) > 0.9
        assert abs(np.median(exact / estimated) - 1) < tolerance
    assert "rank correlation" in agreement_line(scores, measured, (4, 8))
    lines = score_table(scores, (4, 8)).splitlines()
    worst = max(scores, key=lambda name: float(scores[name][0]))
    assert lines[1].startswith(worst)
    assert lines[-1].startswith("sum")
