"""The training loop: AdamW, and the best step by what the validation samples say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from qvla_offline.quantization.trained_scales import TrainedLayer
from qvla_offline.training.options import TrainingOptions
from qvla_offline.training.trainable import TrainableLayer
from qvla_ros.progress import track


class Training(Protocol):
    """What is trained, on samples that are known by their numbers."""

    def loss(self, numbers: Sequence[int]) -> Tensor:
        """The sum over the samples of what training lowers, differentiable in the layers."""

    def errors(self, numbers: Sequence[int]) -> Tensor:
        """The error of each sample, float64 [n] on the CPU; the best step is chosen by it."""


WARM_UP_STEPS = 10
VALIDATIONS = 6
_BETAS = (0.9, 0.95)


@dataclass(frozen=True)
class Trained:
    """The best step of a training. errors: {step: mean error of the validation samples}."""

    layers: dict[str, TrainedLayer]
    step: int
    errors: dict[int, float]


def train(
    layers: Mapping[str, TrainableLayer],
    policy: Training,
    groups: Sequence[Sequence[int]],
    validation: Sequence[int],
    options: TrainingOptions,
    title: str | None = "training scales",
) -> Trained:
    """Trains the parameters of `layers` in place, and returns the best step by validation.

    groups: samples to train on; those of a group are run together. The untrained layers are step 0.
    They are returned unless a step has a clearly smaller mean error on `validation`: by more than
    one standard error of the difference. The same input gives the
    same numbers on the same machine with the same number of threads. title: of the progress that is
    shown; None shows none.
    """
    optimizer = _optimizer(layers.values(), options)
    batches = _batches(groups, options)
    every = max(1, options.steps // VALIDATIONS)
    untrained = policy.errors(validation)
    errors = {0: float(untrained.mean())}
    best = Trained({name: layer.trained() for name, layer in layers.items()}, 0, errors)
    steps: Iterable[int] = range(1, options.steps + 1)
    for step in steps if title is None else track(steps, title, total=options.steps):
        share = _share_of_rate(step, options.steps)
        for parameters in optimizer.param_groups:
            parameters["lr"] = parameters["full_lr"] * share
        optimizer.zero_grad()
        batch = next(batches)
        count = sum(len(group) for group in batch)
        for group in batch:
            (policy.loss(group) / count).backward()
        optimizer.step()
        if step % every == 0 or step == options.steps:
            now = policy.errors(validation)
            errors[step] = float(now.mean())
            if errors[step] < errors[best.step] and clearly_smaller(now, untrained):
                found = {name: layer.trained() for name, layer in layers.items()}
                best = Trained(found, step, errors)
    return best


def _optimizer(layers: Iterable[TrainableLayer], options: TrainingOptions) -> torch.optim.AdamW:
    every = list(layers)
    rates = (
        ([f for layer in every for f in layer.factors.values()], options.learning_rate),
        (
            [layer.correction for layer in every if layer.correction is not None],
            options.bias_learning_rate,
        ),
    )
    groups = [{"params": p, "full_lr": rate} for p, rate in rates if p]
    return torch.optim.AdamW(groups, betas=_BETAS, weight_decay=0.0)


def _batches(
    groups: Sequence[Sequence[int]], options: TrainingOptions
) -> Iterator[list[Sequence[int]]]:
    """Yields batches without end, of `options.batch` samples or a few more.

    Each pass over the groups is in an order of its own.
    """
    generator = torch.Generator().manual_seed(options.seed)
    batch: list[Sequence[int]] = []
    while True:
        for place in torch.randperm(len(groups), generator=generator).tolist():
            batch.append(groups[place])
            if sum(map(len, batch)) >= options.batch:
                yield batch
                batch = []


def clearly_smaller(errors: Tensor, others: Tensor) -> bool:
    """Whether the mean of `errors` [n] is below that of `others` by more than a standard error.

    The two are paired: the same samples in the same order. A few samples of large error decide a
    mean; a difference within the standard error may be theirs alone.
    """
    difference = errors - others
    uncertain = difference.std() / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return bool(difference.mean() + uncertain < 0)


def _share_of_rate(step: int, steps: int) -> float:
    """The share of the learning rate at step 1, 2, ...: a linear rise, and a cosine to 0."""
    rise = min(1.0, step / WARM_UP_STEPS)
    return rise * 0.5 * (1.0 + math.cos(math.pi * (step - 1) / steps))
