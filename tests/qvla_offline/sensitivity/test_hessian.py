from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from qvla_offline.blockwise.passes import Blockwise
from qvla_offline.blockwise.taps import tapped
from qvla_offline.quantization.released import released_rtn
from qvla_offline.sensitivity.hessian import (
    HessianSum,
    hessian_scores,
    inverse_factor_diagonal,
    proxy_scores,
    shared_inputs,
)
from qvla_ros.errors import QvlaError

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "qvla_vectors.json").read_text())
LINEAR = VECTORS["hessian_linear"]
CONV = VECTORS["hessian_conv"]


def wave(*shape: int, phase: float = 0.0) -> torch.Tensor:
    """The inputs of the reference vectors: sin(0.3 (i + 1) + phase)."""
    return torch.sin(0.3 * torch.arange(1, int(np.prod(shape)) + 1) + phase).reshape(shape)


def linear_layer() -> nn.Linear:
    layer = nn.Linear(3, 2, bias=False)
    layer.weight.data = torch.tensor(LINEAR["W"])
    return layer


def conv_layer() -> nn.Conv2d:
    layer = nn.Conv2d(1, 2, 2, stride=2, bias=False)
    layer.weight.data = torch.tensor(CONV["W"]).reshape(2, 1, 2, 2)
    return layer


def test_hessian_of_a_linear_layer_follows_the_reference_recurrence():
    total = HessianSum(linear_layer())
    for inputs, expected in (("X1 (1,2,3)", "H_after_1"), ("X2 (1,2,3)", "H_after_2")):
        total.add(torch.tensor(LINEAR[inputs])[None])
        assert torch.allclose(total.total, torch.tensor(LINEAR[expected]), rtol=1e-6)


def test_scores_of_a_linear_layer_match_the_reference():
    samples = [torch.tensor(LINEAR[key])[None] for key in ("X1 (1,2,3)", "X2 (1,2,3)")]
    layer = linear_layer()
    bits = [int(b) for b in LINEAR["proxy"]]
    policy = Blockwise.resident(layer)
    [result] = list(hessian_scores(policy, {"layer": layer}, samples, bits, LINEAR["percdamp"]))
    scores, reached = result["layer"]
    assert reached
    assert torch.allclose(
        scores, torch.tensor(list(LINEAR["proxy"].values())), rtol=2e-5, atol=1e-12
    )


def test_scores_of_a_convolution_match_the_reference():
    layer = conv_layer()
    samples = [wave(1, 1, 4, 4), wave(1, 1, 4, 4, phase=0.7)]
    total = HessianSum(layer)
    for sample in samples:
        total.add(sample)
    assert torch.allclose(total.total, torch.tensor(CONV["H"]), rtol=1e-5)
    diagonal = inverse_factor_diagonal(total.total, 0.01)
    assert torch.allclose(diagonal, torch.tensor(CONV["d"]), rtol=1e-4)
    scores = proxy_scores(
        layer.weight.detach().flatten(1), diagonal, [int(b) for b in CONV["proxy"]]
    )
    assert torch.allclose(scores, torch.tensor(list(CONV["proxy"].values())), rtol=5e-4)


def test_dead_inputs_and_damping_match_the_reference():
    diagonal = inverse_factor_diagonal(torch.tensor(LINEAR["H_after_2"]), LINEAR["percdamp"])
    assert torch.allclose(diagonal, torch.tensor(LINEAR["d"]), rtol=1e-6)
    assert torch.allclose(
        inverse_factor_diagonal(torch.zeros(3, 3), 0.01), torch.tensor(LINEAR["d_if_never_called"])
    )


def test_a_singular_hessian_is_damped_harder_with_a_warning():
    ones = torch.ones(4, 4) * 1e8
    with pytest.warns(UserWarning, match="damping raised") as warned:
        diagonal = inverse_factor_diagonal(ones - 1e3 * torch.eye(4), 0.0)
    assert warned[0].filename == __file__  # it points at who asked
    assert torch.isfinite(diagonal).all()


def test_inputs_without_a_batch_count_as_one_call_and_a_batch_as_its_samples() -> None:
    """H = 2 / N sum over all tokens of x x^T, N the calls."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 4, 3, generator=generator)

    def hessian(*inputs: torch.Tensor) -> torch.Tensor:
        total = HessianSum(linear_layer())
        for x in inputs:
            total.add(x)
        return total.total

    flat = tokens.reshape(-1, 3)
    expected = flat.T @ flat
    assert torch.allclose(hessian(tokens), 2 / 2 * expected, rtol=1e-5)
    assert torch.allclose(hessian(tokens[:1], tokens[1:]), 2 / 2 * expected, rtol=1e-5)
    assert torch.allclose(hessian(flat), 2 / 1 * expected, rtol=1e-5)
    assert torch.allclose(hessian(*flat), 2 / 8 * expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2), ((2, 1), (0, 1), (1, 2))]
)
def test_a_convolution_reads_the_patches_that_its_weights_multiply(
    stride: int, padding: int, dilation: int
) -> None:
    """Its outputs are the flattened weights times the patches, whatever its geometry."""
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, (2, 3), stride, padding, dilation, bias=False)
    image = torch.randn(1, 2, 7, 8)
    total = HessianSum(layer)
    total.add(image)
    weight = layer.weight.detach().flatten(1)
    outputs = layer(image).detach().flatten(2)[0]
    assert torch.allclose(weight @ total.total @ weight.T, 2 * outputs @ outputs.T, rtol=1e-3)


def test_a_layer_that_never_runs_is_scored_as_if_all_its_inputs_mattered_alike() -> None:
    """H = 0 becomes the identity, damped: 1 / d^2 = 1 + percdamp."""
    model = TwoReaders()
    found = {}
    samples = [torch.randn(1, 3, 8, 8)]
    for group in hessian_scores(Blockwise.resident(model), layers_of(model), samples, (4,), 0.25):
        found |= group
    weight = model.unused.weight.detach()
    expected = 1.25 * (weight - released_rtn(weight, 4)).square().sum(dim=1)
    assert torch.allclose(found["unused"][0][0], expected, rtol=1e-5)


def test_damping_grows_tenfold_from_the_asked_one_until_a_factor_exists() -> None:
    """-1 and 1 on the diagonal of 2: positive definite above a damping of 1."""
    hessian = torch.tensor([[2.0, 3.0], [3.0, 2.0]])
    with pytest.warns(UserWarning, match=r"^layer: H is not positive definite") as warned:
        diagonal = inverse_factor_diagonal(hessian.clone(), 0.01)
    raised = [float(str(w.message).rsplit(" ", 1)[1]) for w in warned]
    assert raised == pytest.approx([0.2, 2.0], rel=1e-2)
    damped = hessian + (0.02 + 0.2 + 2.0) * torch.eye(2)
    upper = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    assert torch.allclose(diagonal, upper.diagonal(), rtol=1e-4)


def test_a_hessian_that_no_damping_makes_positive_is_refused() -> None:
    with (
        pytest.warns(UserWarning, match="damping raised"),
        pytest.raises(QvlaError, match="^hessian of a: got no Cholesky factor"),
    ):
        inverse_factor_diagonal(torch.tensor([[1.0, 1e9], [1e9, 1.0]]), 0.01, "a")


class TwoReaders(nn.Module):
    """q and k read one tensor, v another; `unused` is never called."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 6, 2, stride=2)
        self.q = nn.Linear(6, 5)
        self.k = nn.Linear(6, 4)
        self.v = nn.Linear(6, 3)
        self.unused = nn.Linear(6, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patch(image).flatten(2).transpose(1, 2)
        return self.q(tokens).sum() + self.k(tokens).sum() + self.v(torch.tanh(tokens)).sum()


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def test_layers_that_read_the_same_tensor_share_a_hessian():
    model = TwoReaders()
    with tapped(layers_of(model)) as taps:
        model(torch.randn(1, 3, 8, 8))
    assert shared_inputs(taps) == {"patch": ["patch"], "q": ["q", "k"], "v": ["v"]}


class InBlocks(TwoReaders):
    """The same, each layer a block of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([])


@pytest.mark.parametrize("kind", [TwoReaders, InBlocks])
def test_one_pass_over_all_layers_equals_one_pass_a_layer(kind):
    model = kind()
    bits = (0, 2, 4, 8)
    generator = torch.Generator().manual_seed(1)
    samples = [torch.randn(1, 3, 8, 8, generator=generator) for _ in range(3)]
    found = {}
    for finished in hessian_scores(Blockwise.resident(model), layers_of(model), samples, bits):
        found |= finished
    assert set(found) == set(layers_of(model))
    assert [name for name, (_, reached) in found.items() if not reached] == ["unused"]
    for name, module in layers_of(model).items():
        total = HessianSum(module)
        handle = module.register_forward_pre_hook(
            lambda _, args, total=total: total.add(args[0].detach())
        )
        for sample in samples:
            model(sample)
        handle.remove()
        diagonal = inverse_factor_diagonal(total.total, 0.01)
        weight = module.weight.detach().flatten(1)
        for score, b in zip(found[name][0], bits, strict=True):
            rows = [(((w - released_rtn(w[None], b)[0]) / diagonal) ** 2).sum() for w in weight]
            assert torch.allclose(score, torch.stack(rows), rtol=1e-4)


def test_an_overflowing_block_or_hessian_is_refused_by_name():
    model = InBlocks()
    model.patch.bias.data[:] = 1e30
    with pytest.raises(QvlaError, match="^hessian of q: got (NaN|infinity); .*calibration"):
        list(
            hessian_scores(
                Blockwise.resident(model), layers_of(model), [torch.randn(1, 3, 8, 8)], (4,)
            )
        )
    model.patch.bias.data[:] = float("inf")
    with pytest.raises(QvlaError, match="^output of patch, sample 0: got infinity; .*calibration"):
        list(
            hessian_scores(
                Blockwise.resident(model), layers_of(model), [torch.randn(1, 3, 8, 8)], (4,)
            )
        )
