from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from qvla_offline.quantizers import QuantizationScheme, reconstruct_rows
from qvla_offline.sensitivity.action import PartialSums, Probing, action_scores, sample_squares, weight_errors
from qvla_offline.sensitivity.exact import (
    agreement,
    look_up,
    measured_scores,
    spearman,
    stratified_choices,
    top_channels,
)
from torch import nn

from qvla_ros.errors import QvlaError

SCHEME = QuantizationScheme(16)
BITS = (0, 2, 4, 8)


class TinyPolicy(nn.Module):
    """A convolution, two layers and a frozen head; one layer is never called."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 6, 2, stride=2)
        self.first = nn.Linear(6, 8)
        self.second = nn.Linear(8, outputs)
        self.unused = nn.Linear(4, 4)
        self.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patch(image).flatten(2).mean(dim=2)
        return self.second(torch.tanh(self.first(tokens)))[:, None, :]


def targets_of(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}


def images(count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 3, 4, 4, generator=generator) for _ in range(count)]


def jacobian_scores(model: nn.Module, name: str, samples: list[torch.Tensor]) -> torch.Tensor:
    """||J dw||^2 averaged over samples, from the explicit Jacobian."""
    module = targets_of(model)[name]
    weight = module.weight.detach().clone()

    def output(candidate: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, {f"{name}.weight": candidate}, (sample,)).flatten()

    flat = weight.flatten(1)
    scores = torch.zeros(len(BITS), flat.shape[0])
    for sample in samples:
        jacobian = torch.autograd.functional.jacobian(lambda w, sample=sample: output(w, sample), weight).flatten(2)
        for index, b in enumerate(BITS):
            moved = torch.einsum("orc,rc->or", jacobian, reconstruct_rows(flat, b, SCHEME) - flat)
            scores[index] += moved.square().sum(dim=0) / len(samples)
    return scores


def test_with_one_action_number_a_single_probe_is_the_exact_jacobian_score():
    model, samples = TinyPolicy(outputs=1), images(3)
    found, unreached = action_scores(model, targets_of(model), samples, SCHEME, Probing(BITS, probes=1))
    assert unreached == ("unused",)
    assert not found["unused"].any()
    for name in ("patch", "first", "second"):
        assert torch.allclose(found[name], jacobian_scores(model, name, samples), rtol=1e-4, atol=1e-12)


def test_random_probes_are_unbiased():
    """Over all sign vectors, each equally likely, the mean estimate is exactly the Jacobian score."""
    model, [sample] = TinyPolicy(outputs=3), images(1)
    layers = {name: module for name, module in targets_of(model).items() if name != "unused"}
    errors = {name: weight_errors(module, BITS, SCHEME) for name, module in layers.items()}
    drawn: dict[tuple[int, ...], dict[str, torch.Tensor]] = {}
    for seed in range(48):
        signs = torch.randint(0, 2, (1, 1, 3), generator=torch.Generator().manual_seed(seed))
        drawn.setdefault(
            tuple(signs.flatten().tolist()),
            sample_squares(model, layers, errors, sample, 1, torch.Generator().manual_seed(seed)),
        )
    assert set(drawn) == set(itertools.product((0, 1), repeat=3))
    for name in layers:
        mean = torch.stack([squares[name] for squares in drawn.values()]).mean(dim=0).T
        assert torch.allclose(mean, jacobian_scores(model, name, [sample]), rtol=1e-4, atol=1e-12)


def test_several_passes_give_what_one_pass_gives():
    model, samples = TinyPolicy(), images(2)
    whole, _ = action_scores(model, targets_of(model), samples, SCHEME, Probing(BITS))
    split, _ = action_scores(model, targets_of(model), samples, SCHEME, Probing(BITS, memory_bytes=1.0))
    assert all(torch.equal(whole[name], split[name]) for name in whole)
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("memory_bytes", [1e9, 1.0])
def test_an_interrupted_run_resumes_to_the_same_numbers(tmp_path, memory_bytes):
    model, samples, probing = TinyPolicy(), images(4), Probing(BITS, memory_bytes=memory_bytes)
    whole, _ = action_scores(model, targets_of(model), samples, SCHEME, probing)
    calls = itertools.count()

    def interrupted(sample: torch.Tensor) -> torch.Tensor:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return model(sample)

    with pytest.raises(KeyboardInterrupt):
        action_scores(
            interrupted, targets_of(model), samples, SCHEME, probing, PartialSums(tmp_path / "p", "run", resume=False)
        )
    resumed, _ = action_scores(
        model, targets_of(model), samples, SCHEME, probing, PartialSums(tmp_path / "p", "run", resume=True)
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    with pytest.raises(QvlaError, match="another run"):
        PartialSums(tmp_path / "p", "other", resume=True).load()


def test_a_layer_that_runs_without_moving_the_action_is_refused():
    model = TinyPolicy()
    model.second.weight[:] = 0.0
    with pytest.raises(QvlaError, match="first"):
        action_scores(model, targets_of(model), images(1), SCHEME, Probing(BITS))


def test_first_order_scores_rank_channels_as_exact_measurement_does():
    model, samples = TinyPolicy(), images(3)
    targets = targets_of(model)
    found, unreached = action_scores(model, targets, samples, SCHEME, Probing(BITS, probes=32))
    scores = {name: score.numpy() for name, score in found.items() if name not in unreached}
    choices = stratified_choices(scores, BITS, 40, seed=0)
    assert {bits for _, _, bits in choices} == set(BITS)
    kept = {name: module.weight.clone() for name, module in targets.items()}
    measured = measured_scores(model, targets, samples, choices, SCHEME)
    assert all(torch.equal(module.weight, kept[name]) for name, module in targets.items())
    result = agreement(choices, look_up(scores, BITS, choices), measured)
    assert result.rank_correlation > 0.95
    count, _, ratio = result.by_bits[8]
    assert count == 10
    assert ratio == pytest.approx(1.0, abs=0.3)  # at 8 bits the step is small: first order holds, but for the probes


def test_measured_scores_average_over_every_row_of_a_batch():
    model, samples = TinyPolicy(), images(4)
    choices = [("first", 2, 2), ("patch", 1, 4)]
    single = measured_scores(model, targets_of(model), samples, choices, SCHEME)
    batched = measured_scores(model, targets_of(model), [torch.cat(samples)], choices, SCHEME)
    assert np.allclose(single, batched, rtol=1e-4)


def test_top_channels_are_the_most_sensitive_ones_at_every_bit_width():
    scores = {"a": np.array([[1.0, 9.0], [0.5, 4.0]]), "b": np.array([[5.0], [2.0]])}
    assert top_channels(scores, (2, 4), 2) == [("a", 1, 2), ("a", 1, 4), ("b", 0, 2), ("b", 0, 4)]


def test_rank_correlation_handles_order_ties_and_constants():
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 90.0])) == pytest.approx(1.0)
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([1.0, 1.0, 5.0])) == pytest.approx(1.0)
    assert np.isnan(spearman(np.ones(3), np.arange(3.0)))
