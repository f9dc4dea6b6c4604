"""One update of a training run: losses, gradients, and the step of the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from qvla_reference.attention import PlainAttention
from qvla_reference.auxiliary import grounding_loss, position_loss
from qvla_reference.batches import Batch
from qvla_reference.training_options import TrainingOptions
from qvla_reference.training_state import TrainingState


def learning_rate_factor(step: int, options: TrainingOptions, warm_from: int = 0) -> float:
    """Returns the factor of the learning rate at an update.

    It warms up linearly from update `warm_from` on, is constant, and decays linearly over the last
    `decay_steps`.
    """
    warmup_steps = options.rewarm_steps if warm_from else options.warmup_steps
    warm = (step - warm_from + 1) / warmup_steps
    return max(0.0, min(1.0, warm, (options.steps - step) / max(1, options.decay_steps)))


def losses(state: TrainingState, batch: Batch, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Returns two scalars: action error in controller units per number, and auxiliary error."""
    context = state.model.context(batch.inputs)
    slots, patches = state.model.decode(batch.inputs, context)
    error = (state.model.action_head(slots).float() - batch.chunks).abs()
    slots = slots.float()
    patches = patches.float()
    unread = context[0].float()
    halfway = state.halfway.take()[:, 1 : 1 + unread.shape[1]].float()  # after BOS
    position = position_loss(state.heads["position"], slots, patches, batch.positions_m)
    scores = state.heads["grounding"](slots, unread, halfway, batch.sentence)
    grounding = grounding_loss(scores, batch.sentence, batch.patch_shares)
    return (error * weights).mean(), position + grounding


def gradients(
    state: TrainingState, batch: Batch, weights: Tensor, options: TrainingOptions
) -> tuple[list[Tensor | None], float, float]:
    """Computes the gradients of one batch, its action error and its auxiliary error.

    There is a gradient per parameter of model and heads, None where unused.
    """
    device = weights.device.type
    in_bfloat16 = options.precision == "bfloat16"
    attention = PlainAttention() if in_bfloat16 and device == "cpu" else nullcontext()
    with torch.autocast(device, torch.bfloat16, enabled=in_bfloat16), attention:
        action_error, auxiliary_error = losses(state, batch, weights)
    total = action_error + options.auxiliary_weight * auxiliary_error
    return (
        list(torch.autograd.grad(total, state.parameters(), allow_unused=True)),
        action_error.item(),
        auxiliary_error.item(),
    )


def train_step(
    state: TrainingState,
    shards: Sequence[Callable[[], Batch]],
    weights: Tensor,
    options: TrainingOptions,
    pool: Executor,
) -> tuple[float, float]:
    """Updates weights and average by the mean gradient of equal shards; returns the two losses.

    Shards are made and run side by side, one thread each. On a processor that is shared this is a
    third faster than two threads within each operation, which wait for one another hundreds of
    times a step.
    """
    rate = options.learning_rate * learning_rate_factor(state.step, options, state.warm_from)
    results = list(pool.map(lambda shard: gradients(state, shard(), weights, options), shards))
    for parameter, *parts in zip(
        state.parameters(), *(grads for grads, _, _ in results), strict=True
    ):
        parameter.grad = None if parts[0] is None else sum(parts) / len(parts)
    torch.nn.utils.clip_grad_norm_(state.parameters(), 1.0, foreach=True)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    decay = min(options.ema_decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        torch._foreach_lerp_(
            list(state.average.parameters()), list(state.model.parameters()), 1.0 - decay
        )
    state.step += 1
    action_error, auxiliary_error = np.mean([errors for _, *errors in results], axis=0)
    return float(action_error), float(auxiliary_error)


@contextmanager
def training_arithmetic() -> Iterator[None]:
    """Flushes denormals and, on a CPU, uses one thread an operator while the context lasts.

    `threads` shards of a batch run side by side instead. Both are settings of the whole process, so
    they are put back.
    """
    threads = torch.get_num_threads()
    torch.set_flush_denormal(True)
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
