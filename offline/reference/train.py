"""Behaviour cloning of the bundled policy: L1 on normalised chunks, exact resumption, an export at every save."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.io import PROMPT_TEMPLATE, save_checkpoint
from qvla_offline.reference.architecture import reference_config
from qvla_offline.reference.augment import NONE, Augmentation
from qvla_offline.reference.auxiliary import position_loss
from qvla_offline.reference.batches import Batch, Batcher, action_loss_weights
from qvla_offline.reference.calibration_set import write_calibration_set
from qvla_offline.reference.samples import SampleSet, dataset_statistics
from qvla_offline.reference.tokenizer import train_tokenizer
from qvla_offline.reference.training_state import TrainingOptions, TrainingState, new_state
from torch import Tensor

from qvla_ros.bundle import PromptSpec

REPORT_S = 20.0
HELD_OUT_EVERY = 20  # one episode in so many is never trained on; its error is the printed validation error


def learning_rate_factor(step: int, options: TrainingOptions) -> float:
    """Linear warm-up, constant, linear decay over the last `decay_steps`."""
    return max(0.0, min(1.0, (step + 1) / options.warmup_steps, (options.steps - step) / max(1, options.decay_steps)))


def losses(state: TrainingState, batch: Batch, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(action error in controller units per number, position error): both scalars."""
    slots, patches = state.model.decode(batch.inputs)
    error = (state.model.action_head(slots).float() - batch.chunks).abs()
    return (error * weights).mean(), position_loss(state.heads, slots.float(), patches.float(), batch.positions_m)


def gradients(
    state: TrainingState, batch: Batch, weights: Tensor, options: TrainingOptions
) -> tuple[list[Tensor | None], float, float]:
    """(gradient per parameter of model and heads, None where unused; action error; position error) of one batch."""
    with torch.autocast(weights.device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
        action_error, position_error = losses(state, batch, weights)
    total = action_error + options.auxiliary_weight * position_error
    return (
        list(torch.autograd.grad(total, state.parameters(), allow_unused=True)),
        action_error.item(),
        position_error.item(),
    )


def train_step(
    state: TrainingState,
    shards: Sequence[Callable[[], Batch]],
    weights: Tensor,
    options: TrainingOptions,
    pool: Executor,
) -> tuple[float, float]:
    """One update of weights and average from the mean gradient of equal shards; returns the two losses.

    Shards are made and run side by side, one thread each. On a processor that is shared this is a third faster than
    two threads within each operation, which wait for one another hundreds of times a step.
    """
    rate = options.learning_rate * learning_rate_factor(state.step, options)
    results = list(pool.map(lambda shard: gradients(state, shard(), weights, options), shards))
    for parameter, *parts in zip(state.parameters(), *(grads for grads, _, _ in results), strict=True):
        parameter.grad = None if parts[0] is None else sum(parts) / len(parts)
    torch.nn.utils.clip_grad_norm_(state.parameters(), 1.0, foreach=True)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    decay = min(options.ema_decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        torch._foreach_lerp_(list(state.average.parameters()), list(state.model.parameters()), 1.0 - decay)
    state.step += 1
    action_error, position_error = np.mean([errors for _, *errors in results], axis=0)
    return float(action_error), float(position_error)


@torch.no_grad()
def validation_error(state: TrainingState, batches: list[Batch], weights: Tensor) -> float:
    """Action error of the averaged weights on held-out episodes, controller units per number."""
    errors = [((state.average(batch.inputs) - batch.chunks).abs() * weights).mean() for batch in batches]
    return float(torch.stack(errors).mean()) if errors else float("nan")


@contextmanager
def _training_arithmetic() -> Iterator[None]:
    """Flush denormals, and on a CPU use one thread an operator: `threads` shards of a batch run side by side instead.

    Both are settings of the whole process, so they are put back.
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


@_training_arithmetic()
def train(
    options: TrainingOptions, report: Callable[[str], None] = print, config: PolicyConfig | None = None
) -> TrainingState:
    """Train until `options.steps`, saving and exporting every few minutes, at the end and on Ctrl-C.

    config: another size than the reference's, for tests.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = train_tokenizer()
    prompt = PromptSpec(PROMPT_TEMPLATE, lowercase=True, append_token_id=tokenizer.token_to_id("▁"))
    config = config or reference_config(tokenizer)
    cache, size = options.work_dir / "cache", config.vision[0].image_size
    training = SampleSet(options.demonstrations, cache, size, lambda path: not is_held_out(path))
    validation = SampleSet(options.demonstrations, cache, size, is_held_out)
    state = new_state(options, config, device)
    saved = options.work_dir / "state.pt"
    training.refresh()
    validation.refresh()
    if saved.exists():
        state.load(saved)
        report(f"resumed {saved} at step {state.step}")
    else:
        training.draw(1, np.random.default_rng(0))  # says so if there is no demonstration
        state.statistics = dataset_statistics(training.episodes)
    batcher = Batcher(state.statistics, tokenizer, prompt, device)
    weights = action_loss_weights(state.statistics["action"], options.gripper_weight).to(device)
    options.work_dir.mkdir(parents=True, exist_ok=True)
    (options.work_dir / "options.json").write_text(json.dumps(asdict(options), indent=2, default=str) + "\n")

    history: list[tuple[float, float]] = []  # (action error, position error) of each step since the last save

    def save() -> None:
        error = validation_error(state, validation_batches(validation, batcher), weights)
        state.save(saved)
        kept = extra_files(options.out)
        save_checkpoint(
            options.out, state.average, tokenizer, {options.unnorm_key: state.statistics}, state.step, extra_files=kept
        )
        if not (options.out / "calibration.jsonl").exists():
            write_calibration_set(options.demonstrations, options.out, prompt)
        report(f"step {state.step}: held-out error {error:.4f}; saved {saved}, exported {options.out}")
        entry = {
            "step": state.step,
            "held_out": error,
            "training": float(np.mean([action for action, _ in history])) if history else None,
            "episodes": len(training.episodes),
            "samples": len(training),
        }
        with open(options.work_dir / "curve.jsonl", "a", encoding="utf-8") as curve:
            curve.write(json.dumps(entry) + "\n")
        history.clear()

    report(
        f"{len(training)} samples of {len(training.episodes)} episodes, {len(training.instructions)} tasks, {device}"
    )
    for name in (signal.SIGINT, signal.SIGTERM):  # also in the background, where a shell has SIGINT ignored
        signal.signal(name, _interrupt)
    pool = ThreadPoolExecutor(options.threads)
    try:
        last_save, last_report, reported_step = time.monotonic(), time.monotonic(), state.step
        while state.step < options.steps:
            seed = options.seed * 1_000_003 + state.step * options.threads
            samples = training.draw(options.batch_size, np.random.default_rng(seed))
            shards = [
                partial(
                    batcher.batch, samples.part(i, options.threads), training.instructions, Augmentation(), seed + i
                )
                for i in range(options.threads)
            ]
            history.append(train_step(state, shards, weights, options, pool))
            now = time.monotonic()
            if now - last_report > REPORT_S:
                steps = state.step - reported_step
                action, position = np.mean(history[-steps:], axis=0)
                speed = steps * options.batch_size / (now - last_report)
                report(
                    f"step {state.step}/{options.steps}  action {action:.4f}  position {position:.4f}  {speed:.1f}/s"
                )
                last_report, reported_step = now, state.step
            if now - last_save > options.save_minutes * 60:
                save()
                added = training.refresh() + validation.refresh()
                report(f"{added} new episodes; {len(training)} samples of {len(training.episodes)} episodes")
                last_save = last_report = time.monotonic()
                reported_step = state.step
    finally:  # Ctrl-C and errors included: at most the running step is lost
        pool.shutdown()
        if state.step:
            save()
    return state


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def is_held_out(path: Path) -> bool:
    """Whether an episode file belongs to the validation set, by the number in its name."""
    return int(path.stem.rpartition("_")[2]) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def validation_batches(validation: SampleSet, batcher: Batcher, count: int = 4) -> list[Batch]:
    """The same held-out samples every time, as long as no episode is added; no noise."""
    if not len(validation):
        return []
    rng = np.random.default_rng(0)
    return [batcher.batch(validation.draw(48, rng), validation.instructions, NONE, 0) for _ in range(count)]


def extra_files(out: Path) -> dict[str, Path]:
    """What else lies in the export (model card, calibration set) and must survive the next one."""
    kept = [out / "README.md", out / "calibration.jsonl", *sorted((out / "calibration").glob("*.jpg"))]
    return {str(path.relative_to(out)): path for path in kept if path.exists()}
