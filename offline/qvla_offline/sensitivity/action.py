"""Scores channels by the actions: S(c, b) = E ||A(w_c + dw_cb) - A(w)||^2, to first order.

A is the vector of normalised actions [K * A], w_c the weights of output channel c, dw_cb what
quantizing them to b bits changes (with the scheme that export uses). With J the Jacobian of A, ||J
dw||^2 = E_r (dw . grad_w <r, A>)^2 for random signs r, so one forward pass and a few backward
passes per sample score every channel at every bit-width at once. For a layer that reads x and gives
y, dw . grad_w <r, A> = sum_t grad_y[t] (dw x)[t]: no gradient of a weight is formed. Units: squared
normalised actions, summed over the chunk, averaged over samples.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from qvla_offline.blockwise.passes import BlockPass, Blockwise, Execute, Pull
from qvla_offline.blockwise.schedule import Arguments
from qvla_offline.blockwise.taps import Tap, pull_through, tapped
from qvla_offline.blockwise.weights import members_of
from qvla_offline.checkpoints.targets import QuantizableLayer
from qvla_offline.finite import require_finite
from qvla_offline.quantization.quantizer import (
    NO_STATISTICS,
    LayerStatistics,
    reconstruct_rows,
)
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.hessian import flat_weight
from qvla_offline.sensitivity.store import OVERFLOW
from qvla_ros.atomic import atomic_file
from qvla_ros.errors import QvlaError


@dataclass(frozen=True)
class Probing:
    """How the expectation is taken. bits: ascending; probes: backward passes per sample."""

    bits: tuple[int, ...] = (0, 2, 4, 8)
    probes: int = 4
    seed: int = 0


def action_scores(
    policy: Blockwise,
    targets: Mapping[str, QuantizableLayer],
    samples: Sequence[Any],
    scheme: QuantizationScheme,
    probing: Probing,
    partial: PartialSums | None = None,
    statistics: Mapping[str, LayerStatistics] = NO_STATISTICS,
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Scores the rows of all modules by their effect on the actions.

    Returns ({module: scores float32 [len(bits), R]}, names of the modules that no sample reached,
    whose scores are 0).

    policy: one sample -> normalised actions, differentiable. The samples go forward through one
    block after the other, then the probes backward, each block run once more with its weights at
    hand; so the weights and weight errors of one block are in memory at a time. partial: where
    finished blocks are kept, so that an interrupted run goes on. statistics: {module: its
    statistics}, for quantizers that need them, read one layer at a time. Raises QvlaError naming
    the layers if a module ran and yet moves no action: that is either a part of the network that
    does nothing or a broken gradient, and a zero score would hide it.
    """
    work = Scorer(targets, scheme, probing, statistics, partial)
    reached = squared_effects(policy, samples, work)
    return scores_of(work.sums, reached, targets, probing, len(samples))


def effects_by_sample(
    policy: Blockwise,
    targets: Mapping[str, QuantizableLayer],
    samples: Sequence[Any],
    first: int,
    scheme: QuantizationScheme,
    probing: Probing,
    statistics: Mapping[str, LayerStatistics] = NO_STATISTICS,
) -> dict[str, Tensor]:
    """As action_scores, for some of a run's samples: {module reached: float32 [samples, R, bits]}.

    first: the number that the first of them has in the run. Each is the sum over the probes; added
    in the order of the samples they give what action_scores adds, to the last bit.
    """
    work = Scorer(targets, scheme, probing, statistics, None, first, torch.stack)
    squared_effects(policy, samples, work)
    return work.sums


def added(effects: Sequence[Tensor]) -> Tensor:
    """Adds one after the other: the order is part of the result."""
    total = torch.zeros_like(effects[0])
    for effect in effects:
        total += effect
    return total


def squared_effects(policy: Blockwise, samples: Sequence[Any], work: Scorer) -> list[str]:
    """Runs the samples forward and the probes backward through `work`, which gets its sums.

    Returns the names of the modules that the first sample reached.
    """
    targets = work.targets
    members = members_of(policy.weights.blocks, targets)
    work.members = members
    owner = {name: block for block, names in members.items() for name in names}
    with BlockPass(policy, samples, keep=True) as run:
        work.remaining = Counter(call.block for call in run.schedule.calls)
        run.forward("action, forward", work.noting_reached)
        reached = [name for name in targets if name in work.reached]
        print(
            f"action: {len(reached)} of {len(targets)} layers run, in {len(members)} "
            f"blocks, {len(samples)} samples"
        )
        unfinished = {owner[name] for name in reached if name not in work.sums}
        run.backward(
            "action, backward",
            unfinished,
            lambda sample, actions: random_signs(actions, work.first + sample, work.probing),
            work.pulling,
        )
    return reached


def scores_of(
    sums: Mapping[str, Tensor],
    reached: Sequence[str],
    targets: Mapping[str, QuantizableLayer],
    probing: Probing,
    samples: int,
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """What action_scores returns, of the sums over so many samples; its QvlaError too."""
    scores = {
        name: torch.zeros(len(probing.bits), targets[name].weight.shape[0]) for name in targets
    }
    scores |= {
        name: (sums[name] / (samples * probing.probes)).T.contiguous().cpu() for name in sums
    }
    silent = [name for name in reached if not scores[name].any()]
    if silent:
        raise QvlaError(
            "sensitivity",
            f"{len(silent)} layers that run but move no action: {', '.join(silent[:3])}",
            "a non-zero score in every layer that runs",
            "check that gradients reach them, or leave them out of the model",
        )
    return scores, tuple(name for name in targets if name not in reached)


def random_signs(actions: Tensor, sample: int, probing: Probing) -> list[Tensor]:
    """Draws random signs in the shape of the actions, one tensor per probe.

    They are equal for equal seed and sample number.
    """
    generator = torch.Generator().manual_seed(probing.seed * 1_000_003 + sample)
    return [
        torch.randint(0, 2, actions.shape, generator=generator).to(actions) * 2 - 1
        for _ in range(probing.probes)
    ]


class Scorer:
    """What is done at each block.

    sums: {module: (dw . grad)^2 summed over probes, and over samples by `gather`, float32 [R,
    bits]}. first: number of the first sample. members: {block: targets in it}.
    """

    def __init__(
        self,
        targets: Mapping[str, QuantizableLayer],
        scheme: QuantizationScheme,
        probing: Probing,
        statistics: Mapping[str, LayerStatistics],
        partial: PartialSums | None,
        first: int = 0,
        gather: Callable[[list[Tensor]], Tensor] = added,
    ) -> None:
        self.members: Mapping[str, list[str]] = {}
        self.targets = targets
        self.probing = probing
        self.scheme = scheme
        self.sums = partial.load() if partial else {}
        self.partial = partial
        self.statistics = statistics
        self.first = first
        self.gather = gather
        self.reached: set[str] = set()
        # calls of each block that the way back has yet to come to
        self.remaining: Counter[str] = Counter()
        # sums over the calls so far, for blocks that are called again
        self._moved: dict[tuple[int, str], Tensor] = {}

    @contextmanager
    def noting_reached(self, index: int, name: str, block: nn.Module) -> Iterator[Execute]:
        """On the way forward: which targets run, by the first sample."""

        def execute(sample: int, arguments: Arguments) -> Tensor:
            layers = {} if sample else {n: self.targets[n] for n in self.members.get(name, [])}
            with tapped(layers) as taps:
                output = arguments.call(block)
            self.reached |= {tap.name for tap in taps}
            require_finite(f"output of {name or 'the policy'}, sample {sample}", output, OVERFLOW)
            return output

        yield execute

    @contextmanager
    def pulling(self, index: int, name: str, block: nn.Module) -> Iterator[Pull]:
        """On the way back: run the block again, pull the probes through it, score its layers."""
        scored = [n for n in self.members.get(name, []) if n in self.reached and n not in self.sums]
        layers = {n: self.targets[n] for n in scored}
        bits = self.probing.bits
        drops = 0 in bits
        errors = {
            n: weight_errors(module, bits, self.scheme, f"{n}.weight", self.statistics.get(n))
            for n, module in layers.items()
        }
        squares: dict[str, list[Tensor]] = {n: [] for n in layers}
        self.remaining[name] -= 1
        last = not self.remaining[name]

        def pull(sample: int, arguments: Arguments, cotangents: Tensor) -> list[tuple[Tensor, ...]]:
            of_inputs, of_taps = pull_through(block, arguments, layers, cotangents)
            for tap, gradients in of_taps:
                moved = _moved(tap, errors[tap.name], gradients, drops)
                key = (sample, tap.name)
                self._moved[key] = self._moved[key] + moved if key in self._moved else moved
            if last:
                for n in layers:
                    if (sample, n) in self._moved:
                        squares[n].append(self._moved.pop((sample, n)).square().sum(dim=0))
            return of_inputs

        yield pull
        if last and layers:
            found = {n: self.gather(squares[n] or [_nothing(errors[n], bits)]) for n in layers}
            for n, square in found.items():
                # Before it is saved: a resumed run would take it as it is.
                require_finite(f"sensitivity of {n}", square, OVERFLOW)
            self.sums |= found
            if self.partial:
                self.partial.save(self.sums)


def _nothing(errors: Tensor, bits: Sequence[int]) -> Tensor:
    """The squares [R, bits] of a layer that no probe came back to."""
    return torch.zeros(len(errors), len(bits), device=errors.device)


def weight_errors(
    module: QuantizableLayer,
    bits: Sequence[int],
    scheme: QuantizationScheme,
    name: str = "weight",
    statistics: LayerStatistics | None = None,
) -> Tensor:
    """dw [R, bits above 0, C] in the dtype of the weight: what each bit-width changes.

    name: of the weight. statistics: of the layer, for quantizers that need them.
    """
    weight = flat_weight(module)
    widths = [b for b in bits if b]
    errors = weight.new_empty(weight.shape[0], len(widths), weight.shape[1])
    wide = weight.float()
    for index, width in enumerate(widths):
        errors[:, index] = reconstruct_rows(wide, width, scheme, name, statistics) - wide
    return errors


def _moved(tap: Tap, errors: Tensor, gradients: Sequence[Tensor], drops: bool) -> Tensor:
    """Computes dw . grad_w of every probe, channel and bit-width, [P, R, bits].

    It is for one execution of a layer.

    drops: whether 0 bits are among them, first; there dw x is the bias less the output.
    """
    module = tap.module
    rows = len(errors)
    if isinstance(module, nn.Conv2d):
        kernels = errors.reshape(-1, *module.weight.shape[1:])
        convolved = F.conv2d(
            tap.input, kernels, None, module.stride, module.padding, module.dilation, module.groups
        )
        changes = convolved.flatten(2).transpose(0, 1)
        output, *gradients = (
            tensor.flatten(2).transpose(1, 2) for tensor in (tap.output, *gradients)
        )
    else:
        changes = errors.flatten(0, 1) @ tap.input.flatten(0, -2).T
        output = tap.output
    changes = changes.reshape(rows, -1, output.numel() // rows)  # [R, bits, tokens]
    if drops:
        lost = output.reshape(-1, rows).T[:, None]
        bias = 0 if module.bias is None else module.bias[:, None, None]
        changes = torch.cat([bias - lost, changes], dim=1)
    # [R, P, tokens]
    deltas = torch.stack([gradient.reshape(-1, rows).T for gradient in gradients], dim=1)
    return torch.bmm(deltas, changes.transpose(1, 2)).transpose(0, 1).float()


class PartialSums:
    """Sums of the layers done so far, kept in a file beside the result until that is written."""

    def __init__(self, path: Path, fingerprint: str, resume: bool) -> None:
        """fingerprint: hash of all that the numbers depend on; a file with another one is not
        continued.
        """
        self.path = path
        self.fingerprint = fingerprint
        self.resume = resume

    def load(self) -> dict[str, Tensor]:
        """{module: sums}; nothing unless resuming."""
        if not self.resume or not self.path.is_file():
            return {}
        with safe_open(self.path, "pt") as file:
            metadata = json.loads((file.metadata() or {}).get("qvla_partial", "{}"))
        # none at all: that of the hessian method
        if metadata.get("fingerprint") != self.fingerprint:
            raise QvlaError(
                str(self.path),
                "sums of another run",
                "the same checkpoint, calibration, bits, scheme, probes and seed",
                "delete it, or run without --resume",
            )
        sums = load_file(self.path)
        print(f"resuming after {len(sums)} layers")
        return sums

    def save(self, sums: Mapping[str, Tensor]) -> None:
        metadata = {"qvla_partial": json.dumps({"fingerprint": self.fingerprint})}
        with atomic_file(self.path) as temporary:
            save_file(
                {name: tensor.contiguous() for name, tensor in sums.items()}, temporary, metadata
            )

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
