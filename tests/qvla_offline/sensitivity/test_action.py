from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from qvla_offline.blockwise.passes import Blockwise
from qvla_offline.quantization.quantizer import reconstruct_rows
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.action import (
    PartialSums,
    Probing,
    action_scores,
    random_signs,
    weight_errors,
)
from qvla_offline.sensitivity.exact import (
    agreement,
    look_up,
    measured_scores,
    spearman,
    stratified_choices,
    top_channels,
)
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
        self.unused = nn.Linear(4, 5)
        self.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patch(image).flatten(2).mean(dim=2)
        return self.second(torch.tanh(self.first(tokens)))[:, None, :]


class InBlocks(nn.Module):
    """Four blocks, one of them called twice; the input of the last depends on three of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 8, 2, stride=2)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(2))
        self.head = nn.Linear(24, 2)
        self.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = self.patch(image).flatten(2).mean(dim=2)
        first = self.layers[0](patches)
        again = self.layers[0](2 * self.layers[1](first))
        return self.head(torch.cat([patches, first, again], dim=1))[:, None, :]


def scores_of(model: nn.Module, samples, probing: Probing, partial: PartialSums | None = None):
    return action_scores(
        Blockwise.resident(model), targets_of(model), samples, SCHEME, probing, partial
    )


def targets_of(model: nn.Module) -> dict[str, nn.Module]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


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
        jacobian = torch.autograd.functional.jacobian(
            lambda w, sample=sample: output(w, sample), weight
        ).flatten(2)
        for index, b in enumerate(BITS):
            moved = torch.einsum("orc,rc->or", jacobian, reconstruct_rows(flat, b, SCHEME) - flat)
            scores[index] += moved.square().sum(dim=0) / len(samples)
    return scores


def test_with_one_action_number_a_single_probe_is_the_exact_jacobian_score():
    model = TinyPolicy(outputs=1)
    samples = images(3)
    found, unreached = scores_of(model, samples, Probing(BITS, probes=1))
    assert unreached == ("unused",)
    assert found["unused"].shape == (len(BITS), 5)
    assert not found["unused"].any()
    for name in ("patch", "first", "second"):
        assert torch.allclose(
            found[name], jacobian_scores(model, name, samples), rtol=1e-4, atol=1e-12
        )


@pytest.mark.parametrize(("kind", "outputs"), [(TinyPolicy, 3), (InBlocks, 2)])
def test_random_probes_are_unbiased(kind, outputs):
    """Over all sign vectors, equally likely, the mean estimate is exactly the Jacobian score."""
    model = kind()
    [sample] = images(1)
    drawn: dict[tuple[int, ...], dict[str, torch.Tensor]] = {}
    for seed in range(48):
        signs = torch.randint(
            0, 2, (1, 1, outputs), generator=torch.Generator().manual_seed(seed * 1_000_003)
        )
        key = tuple(signs.flatten().tolist())
        if key not in drawn:
            drawn[key], unreached = scores_of(model, [sample], Probing(BITS, probes=1, seed=seed))
    assert set(drawn) == set(itertools.product((0, 1), repeat=outputs))
    for name in set(targets_of(model)) - set(unreached):
        mean = torch.stack([scores[name] for scores in drawn.values()]).mean(dim=0)
        assert torch.allclose(mean, jacobian_scores(model, name, [sample]), rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("interrupted_at", [1, 3, 4])
def test_an_interrupted_run_resumes_to_the_same_numbers(tmp_path, interrupted_at):
    model = InBlocks()
    samples = images(4)
    probing = Probing(BITS)
    whole, _ = scores_of(model, samples, probing)
    path = tmp_path / "p"

    class Interrupted(PartialSums):
        saves = 0

        def save(self, sums) -> None:
            self.saves += 1
            if self.saves == interrupted_at:
                raise KeyboardInterrupt
            super().save(sums)

    with pytest.raises(KeyboardInterrupt):
        scores_of(model, samples, probing, Interrupted(path, "run", resume=False))
    resumed, _ = scores_of(model, samples, probing, PartialSums(path, "run", resume=True))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    with pytest.raises(QvlaError, match="another run"):
        PartialSums(path, "other", resume=True).load()


def test_a_layer_that_runs_without_moving_the_action_is_refused():
    model = TinyPolicy()
    model.second.weight[:] = 0.0
    with pytest.raises(QvlaError, match="first"):
        scores_of(model, images(1), Probing(BITS))


def test_a_block_whose_output_overflows_is_named_before_anything_is_scored():
    model = InBlocks()
    model.layers[1][0].bias[:] = float("inf")
    model.layers[1][1] = nn.Identity()
    with pytest.raises(QvlaError, match=r"^output of layers\.1, sample 0: .*finite.*calibration"):
        scores_of(model, images(1), Probing(BITS))


def test_a_score_that_overflows_names_its_layer_and_is_not_kept_for_a_resumed_run(tmp_path):
    model = TinyPolicy()
    model.second.weight[:] *= 1e25
    partial = PartialSums(tmp_path / "p", "run", resume=True)
    with pytest.raises(
        QvlaError, match=r"^sensitivity of (patch|first|second): got (NaN|infinity)"
    ):
        scores_of(model, images(1), Probing(BITS), partial)
    assert not list(tmp_path.iterdir())


def test_first_order_scores_rank_channels_as_exact_measurement_does():
    model = TinyPolicy()
    samples = images(3)
    targets = targets_of(model)
    found, unreached = scores_of(model, samples, Probing(BITS, probes=32))
    scores = {name: score.numpy() for name, score in found.items() if name not in unreached}
    choices = stratified_choices(scores, BITS, 40, seed=0)
    assert {bits for _, _, bits in choices} == set(BITS)
    kept = {name: module.weight.clone() for name, module in targets.items()}
    measured = measured_scores(Blockwise.resident(model), targets, samples, choices, SCHEME)
    assert all(torch.equal(module.weight, kept[name]) for name, module in targets.items())
    result = agreement(choices, look_up(scores, BITS, choices), measured)
    assert result.rank_correlation > 0.95
    count, _, ratio = result.by_bits[8]
    assert count == 10
    # at 8 bits the step is small: first order holds, but for the probes
    assert ratio == pytest.approx(1.0, abs=0.3)


def test_measured_scores_average_over_every_row_of_a_batch():
    model = TinyPolicy()
    samples = images(4)
    policy = Blockwise.resident(model)
    choices = [("first", 2, 2), ("patch", 1, 4)]
    single = measured_scores(policy, targets_of(model), samples, choices, SCHEME)
    batched = measured_scores(policy, targets_of(model), [torch.cat(samples)], choices, SCHEME)
    assert np.allclose(single, batched, rtol=1e-4)


def test_measured_scores_are_those_of_the_whole_model_with_one_row_changed():
    model = InBlocks()
    samples = images(3)
    targets = targets_of(model)
    choices = [(name, row, b) for name in targets for row, b in ((0, 0), (1, 2))]
    found = measured_scores(Blockwise.resident(model), targets, samples, choices, SCHEME)
    for (name, row, b), score in zip(choices, found, strict=True):
        weight = targets[name].weight.clone()
        weight[row] = reconstruct_rows(weight[row].reshape(1, -1), b, SCHEME).reshape(
            weight[row].shape
        )
        changed = [
            torch.func.functional_call(model, {f"{name}.weight": weight}, (s,)) - model(s)
            for s in samples
        ]
        assert score == pytest.approx(float(torch.cat(changed).square().sum()) / 3, rel=1e-3)


class Convolutions(nn.Module):
    """Convolutions of every geometry that they may have, each followed by the next."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.padded = nn.Conv2d(3, 4, 3, stride=(1, 2), padding=(1, 0), dilation=1)
        self.dilated = nn.Conv2d(4, 4, 2, dilation=2, bias=False)
        self.head = nn.Linear(4, 1, bias=False)
        self.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pixels = self.dilated(torch.tanh(self.padded(image))).flatten(2).mean(dim=2)
        return self.head(pixels)[:, None, :]


def test_convolutions_of_any_geometry_and_layers_without_bias_are_scored_exactly():
    model = Convolutions()
    samples = [
        torch.randn(1, 3, 6, 9, generator=torch.Generator().manual_seed(seed)) for seed in range(2)
    ]
    found, unreached = scores_of(model, samples, Probing(BITS, probes=1))
    assert unreached == ()
    for name in ("padded", "dilated", "head"):
        expected = jacobian_scores(model, name, samples)
        assert torch.allclose(found[name], expected, rtol=1e-4, atol=1e-12)


def test_without_zero_bits_the_other_scores_are_the_same():
    model = TinyPolicy()
    samples = images(2)
    all_bits, _ = scores_of(model, samples, Probing(BITS))
    some, _ = scores_of(model, samples, Probing((4, 8)))
    for name in ("patch", "first", "second"):
        assert torch.allclose(some[name], all_bits[name][2:], rtol=1e-5)


def test_the_error_of_a_weight_is_the_stored_one_less_the_true_one():
    layer = nn.Linear(20, 3)
    errors = weight_errors(layer, (0, 2, 8), SCHEME)
    assert errors.shape == (3, 2, 20)  # what is dropped is not an error of rounding
    for index, width in enumerate((2, 8)):
        stored = reconstruct_rows(layer.weight.detach(), width, SCHEME)
        assert torch.equal(errors[:, index], stored - layer.weight.detach())


def test_probes_are_signs_that_differ_by_sample_and_seed():
    actions = torch.zeros(1, 8, 7)
    drawn = [
        random_signs(actions, sample, Probing(probes=3, seed=seed))
        for sample in range(3)
        for seed in range(3)
    ]
    flat = [signs.flatten().tolist() for probes in drawn for signs in probes]
    assert {value for signs in flat for value in signs} == {-1.0, 1.0}
    assert len({tuple(signs) for signs in flat}) == 27


def test_nothing_is_taken_over_unless_a_run_is_resumed(tmp_path):
    sums = {"a": torch.arange(6.0).reshape(2, 3)}
    PartialSums(tmp_path / "p", "run", resume=False).save(sums)
    assert PartialSums(tmp_path / "p", "run", resume=False).load() == {}
    assert torch.equal(PartialSums(tmp_path / "p", "run", resume=True).load()["a"], sums["a"])
    assert PartialSums(tmp_path / "absent", "run", resume=True).load() == {}


def test_top_channels_are_the_most_sensitive_ones_at_every_bit_width():
    scores = {"a": np.array([[1.0, 9.0], [0.5, 4.0]]), "b": np.array([[5.0], [2.0]])}
    assert top_channels(scores, (2, 4), 2) == [("a", 1, 2), ("a", 1, 4), ("b", 0, 2), ("b", 0, 4)]


def test_rank_correlation_handles_order_ties_and_constants():
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 90.0])) == pytest.approx(1.0)
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([1.0, 1.0, 5.0])) == pytest.approx(1.0)
    assert spearman(np.ones(3), np.arange(3.0)) is None
    assert spearman(np.ones(1), np.ones(1)) is None


def test_what_too_few_channels_cannot_tell_is_a_dash_in_the_table():
    result = agreement([("a", 0, 2), ("a", 1, 4)], np.array([1.0, 0.0]), np.array([3.0, 2.0]))
    assert result.by_bits == {2: (1, None, 3.0), 4: (1, None, None)}
    assert [line.split() for line in result.table().splitlines()[1:]] == [
        ["2", "1", "-", "3.0000"],
        ["4", "1", "-", "-"],
        ["all", "2", "1.0000", "3.0000"],
    ]
