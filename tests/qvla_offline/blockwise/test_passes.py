"""A model that runs block by block gives what it gives in one go.

So do the sensitivities that are computed on the way.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from qvla_offline.blockwise.passes import BlockPass, Blockwise, plainly
from qvla_offline.blockwise.weights import BlockWeights
from qvla_offline.checkpoints.empty import empty_model
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.checkpoints.random_checkpoint import random_inputs, write_random_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets, unexecuted_targets
from qvla_offline.quantization.quantizer import reconstruct_rows
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.action import Probing, action_scores
from qvla_offline.sensitivity.exact import measured_scores
from qvla_offline.sensitivity.hessian import hessian_scores
from qvla_offline.sensitivity.prepare import prepared
from tests.support.random_model import random_model

FAMILIES = ["openvla", "openvla_oft", "openvla_oft_film", "openvla_oft_diffusion", "univla"]
BITS = (0, 2, 4, 8)
SCHEME = QuantizationScheme(16, clip_search=False)


def streamed(full: nn.Module, folder: Path | None = None) -> Blockwise:
    """A copy without weights, of which no block is kept and all activations go to files."""
    model = empty_model(full.config).eval()
    return Blockwise(
        model.smooth_actions, BlockWeights(model, full.state_dict(), kept_bytes=0), 0, folder
    )


def samples_of(full: nn.Module, count: int) -> list[PolicyInputs]:
    inputs = [random_inputs(full.config, length=12 + index, seed=index) for index in range(count)]
    return [full.prepare(sample) for sample in inputs]


@pytest.mark.parametrize("family", FAMILIES)
def test_streamed_blocks_give_the_actions_of_the_whole_model(family: str, tmp_path: Path) -> None:
    full = random_model("tiny", family=family)
    samples = samples_of(full, 2)
    policy = streamed(full, tmp_path)
    with BlockPass(policy, samples) as run:
        run.forward()
        for index, sample in enumerate(samples):
            torch.testing.assert_close(run.result(index), full.smooth_actions(sample))
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    assert all(p.is_meta for block in policy.weights.blocks.values() for p in block.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_choices_are_prepared_with_blocks_filled_on_demand(family: str) -> None:
    full = random_model("tiny", family=family)
    inputs = random_inputs(full.config, seed=3)
    model = empty_model(full.config).eval()
    policy = Blockwise(model.smooth_actions, BlockWeights(model, full.state_dict(), kept_bytes=0))
    with policy.filled_on_demand():
        prepared = model.prepare(inputs)
    expected = full.prepare(inputs).chosen
    assert (prepared.chosen is None) == (expected is None)
    if expected is not None:
        torch.testing.assert_close(prepared.chosen, expected)


@pytest.mark.parametrize("family", ["openvla", "openvla_oft_diffusion"])
def test_samples_prepared_together_are_those_prepared_alone_and_in_order(family: str) -> None:
    full = random_model("tiny", family=family)
    inputs = [
        random_inputs(full.config, length=length, seed=seed)
        for seed, length in enumerate([9, 11, 9])
    ]
    for found, sample in zip(prepared(full, inputs), inputs, strict=True):
        assert torch.equal(found.input_ids, sample.input_ids)
        torch.testing.assert_close(found.chosen, full.prepare(sample).chosen)


def whole_model_scores(
    model: nn.Module, samples: list[PolicyInputs], probing: Probing
) -> Mapping[str, Tensor]:
    """The same estimate by the gradients of all weights at once."""
    targets = quantization_targets(model)
    weights = [module.weight.requires_grad_(True) for module in targets.values()]
    scores = {
        name: torch.zeros(len(probing.bits), len(module.weight)) for name, module in targets.items()
    }
    flat = {name: module.weight.detach().flatten(1) for name, module in targets.items()}
    errors = {
        n: torch.stack([reconstruct_rows(w, b, SCHEME) - w for b in probing.bits])
        for n, w in flat.items()
    }
    for index, sample in enumerate(samples):
        generator = torch.Generator().manual_seed(probing.seed * 1_000_003 + index)
        actions = model.smooth_actions(sample)
        for _ in range(probing.probes):
            signs = torch.randint(0, 2, actions.shape, generator=generator) * 2.0 - 1
            grads = torch.autograd.grad(
                actions, weights, signs, retain_graph=True, materialize_grads=True
            )
            for name, grad in zip(targets, grads, strict=True):
                moved = (errors[name] * grad.flatten(1)).sum(dim=2)
                scores[name] += moved.square() / (len(samples) * probing.probes)
    model.requires_grad_(False)
    return scores


@pytest.mark.parametrize("family", ["openvla", "openvla_oft", "openvla_oft_film"])
def test_streamed_action_scores_equal_those_of_the_whole_model(family: str) -> None:
    full = random_model("tiny", family=family)
    samples = samples_of(full, 2)
    probing = Probing(BITS, probes=1, seed=5)
    policy = streamed(full)
    model = policy.run.__self__
    found, unreached = action_scores(policy, quantization_targets(model), samples, SCHEME, probing)
    assert set(unreached) == unexecuted_targets(full)
    for name, expected in whole_model_scores(full, samples, probing).items():
        scale = expected.abs().mean(dim=1, keepdim=True) + 1e-30
        torch.testing.assert_close(found[name] / scale, expected / scale, rtol=2e-3, atol=2e-3)


def test_a_sharded_checkpoint_is_scored_as_its_loaded_policy(tmp_path: Path) -> None:
    path = write_random_checkpoint(tmp_path / "checkpoint")
    full = load_checkpoint(path)
    lazy = load_checkpoint(path, lazily=True)
    samples = samples_of(full.model, 2)
    weights = BlockWeights(lazy.model, lazy.tensors, kept_bytes=100_000)
    policy = Blockwise(lazy.model.smooth_actions, weights, memory_bytes=10_000, folder=tmp_path)
    resident = Blockwise.resident(full.model)
    streamed_targets = quantization_targets(lazy.model)
    targets = quantization_targets(full.model)
    probing = Probing(BITS, probes=1)
    first, _ = action_scores(policy, streamed_targets, samples, SCHEME, probing)
    second, _ = action_scores(resident, targets, samples, SCHEME, probing)
    assert all(torch.equal(first[name], second[name]) for name in targets)
    found, expected = (
        {
            name: scores
            for group in hessian_scores(p, t, samples, BITS)
            for name, scores in group.items()
        }
        for p, t in ((policy, streamed_targets), (resident, targets))
    )
    assert set(found) == set(targets)
    assert all(torch.equal(found[name][0], expected[name][0]) for name in targets)
    choices = [
        (name, 1, 2) for name in list(targets)[::9] if name not in unexecuted_targets(full.model)
    ]
    pair = [
        measured_scores(p, t, samples, choices, SCHEME)
        for p, t in ((policy, streamed_targets), (resident, targets))
    ]
    assert (pair[0] == pair[1]).all()
    assert (pair[0] > 0).all()


class Crossing(nn.Module):
    """Blocks whose outputs are cut, mixed and read again later."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.final = nn.Linear(8, 2)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        first = self.layers[0](x)
        second = self.layers[1](first[:, :1] * first)
        again = self.layers[1](x)
        third = self.layers[2](again)
        return self.final(torch.cat([third, first + second], dim=1))


def test_the_schedule_tells_what_each_call_is_made_of() -> None:
    schedule = Blockwise.resident(Crossing()).schedule(torch.randn(2, 4))
    assert [call.block for call in schedule.calls] == [
        "layers.0",
        "layers.1",
        "layers.1",
        "layers.2",
        "final",
    ]
    assert [sorted(call.feeds) for call in schedule.calls] == [[], [0], [], [2], [0, 1, 3]]
    assert schedule.result == {4}
    assert schedule.last_use() == {0: 4, 1: 4, 2: 3, 3: 4, 4: 5}
    assert schedule.downstream({"layers.1"}) == {1, 2, 3, 4}
    assert schedule.downstream({"layers.2"}) == {3, 4}


def test_pulled_back_cotangents_are_the_gradients() -> None:
    """To each block's output, summed over its calls, for several cotangents at once."""
    model = Crossing()
    samples = [torch.randn(2, 4), torch.randn(3, 4)]
    directions = [torch.randn(2, *model(sample).shape) for sample in samples]
    found: dict[tuple[int, int], Tensor] = {}

    @contextmanager
    def work(index, name, block):
        def pull(sample, arguments, cotangents):
            found[index, sample] = cotangents
            given = [
                tensor.detach().requires_grad_(tensor.requires_grad) for tensor in arguments.tensors
            ]
            inputs = [tensor for tensor in given if tensor.requires_grad]
            with torch.enable_grad():
                output = arguments.call(block, given)
            return [
                torch.autograd.grad(output, inputs, c, retain_graph=True) if inputs else ()
                for c in cotangents
            ]

        yield pull

    with BlockPass(Blockwise.resident(model), samples, keep=True) as run:
        run.forward().backward(
            "back", model_blocks(model), lambda sample, result: list(directions[sample]), work
        )
    for sample, x in enumerate(samples):
        result, outputs = run_noting_outputs(model, x)
        for place, direction in enumerate(directions[sample]):
            expected = torch.autograd.grad(result, outputs, direction, retain_graph=True)
            for index, gradient in enumerate(expected):
                torch.testing.assert_close(found[index, sample][place], gradient)


def run_noting_outputs(model: Crossing, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The result and the outputs of all block calls, in one autograd graph."""
    outputs: list[Tensor] = []

    def note(module: nn.Module, args: object, output: Tensor) -> Tensor:
        outputs.append(output.requires_grad_())
        return output

    handles = [module.register_forward_hook(note) for module in [*model.layers, model.final]]
    result = model(x)
    for handle in handles:
        handle.remove()
    return result, outputs


def model_blocks(model: nn.Module) -> set[str]:
    return {call.block for call in Blockwise.resident(model).schedule(torch.randn(1, 4)).calls}


def test_a_pass_over_another_runs_only_what_the_change_reaches() -> None:
    model = Crossing()
    samples = [torch.randn(2, 4)]
    policy = Blockwise.resident(model)
    with BlockPass(policy, samples, keep=True) as base:
        base.forward()
        with BlockPass(policy, samples, over=base, changed="layers.2") as run:
            assert list(run.steps(None, plainly)) == ["layers.2", "final"]
            torch.testing.assert_close(run.result(0), model(samples[0]))
    assert all("forward" not in vars(block) for block in policy.weights.blocks.values())


def test_what_is_prepared_for_a_block_is_gone_before_the_next_is_prepared() -> None:
    class Prepared:
        """Stands for the weight errors of a block, gigabytes of them."""

    earlier: list[weakref.ref[Prepared]] = []

    def prepare() -> Prepared:
        assert [reference for reference in earlier if reference() is not None] == []
        held = Prepared()
        earlier.append(weakref.ref(held))
        return held

    @contextmanager
    def executing(index, name, block):
        held = prepare()
        yield lambda sample, arguments: arguments.call(block) if held else None

    @contextmanager
    def pulling(index, name, block):
        held = prepare()

        def pull(sample, arguments, cotangents):
            assert held
            return [
                [torch.zeros_like(t) for t in arguments.tensors if t.requires_grad]
                for _ in cotangents
            ]

        yield pull

    model = Crossing()
    samples = [torch.randn(2, 4)]
    with BlockPass(Blockwise.resident(model), samples, keep=True) as run:
        run.forward(work=executing)
        run.backward(
            "back", model_blocks(model), lambda sample, result: [torch.ones_like(result)], pulling
        )
    assert len(earlier) == 10  # five calls, forward and back


def test_a_block_that_gives_no_tensor_is_named() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.LSTM(4, 4)])

        def forward(self, x: Tensor) -> Tensor:
            return self.layers[0](x)[0]

    with pytest.raises(TypeError, match="layers.0"):
        Blockwise.resident(Pair()).schedule(torch.randn(2, 4))
