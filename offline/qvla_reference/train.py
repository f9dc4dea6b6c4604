"""Trains the bundled policy by behaviour cloning: L1 on normalised chunks.

Training resumes exactly, and exports a checkpoint at every save.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.openvla_oft import OpenVLAOFT
from qvla_offline.checkpoints.results import require_result_replaceable
from qvla_offline.checkpoints.save import save_checkpoint
from qvla_offline.checkpoints.tokenizer import PROMPT_TEMPLATE, train_tokenizer
from qvla_reference.architecture import reference_config
from qvla_reference.attention import PlainAttention
from qvla_reference.augment import NONE, Augmentation
from qvla_reference.auxiliary import grounding_loss, position_loss
from qvla_reference.batches import Batch, Batcher, action_loss_weights
from qvla_reference.calibration_set import write_calibration_set
from qvla_reference.samples import Samples, SampleSet, dataset_statistics
from qvla_reference.training_plot import plot_run
from qvla_reference.training_state import TrainingOptions, TrainingState, new_state
from qvla_ros.bundle import PromptSpec

REPORT_S = 20.0
HELD_OUT_EVERY = (
    20  # one episode in so many is never trained on; their error is the printed held-out error
)
NEW_EPISODES_AT_ONCE = (
    200  # decoding must not keep training waiting for long; the rest follows at the next save
)


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
def _training_arithmetic() -> Iterator[None]:
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


@_training_arithmetic()
def train(
    options: TrainingOptions,
    report: Callable[[str], None] = print,
    config: PolicyConfig | None = None,
) -> TrainingState:
    """Trains until `options.steps`.

    It saves and exports every few minutes, at the end and on Ctrl-C. config: another size than the
    reference's, for tests.
    """
    # the first export would raise it after minutes
    require_result_replaceable(options.out, "trained")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = train_tokenizer()
    prompt = PromptSpec(PROMPT_TEMPLATE, lowercase=True, append_token_id=tokenizer.token_to_id("▁"))
    config = config or reference_config(tokenizer)
    cache = options.work_dir / "cache"
    size = config.vision[0].image_size
    training = SampleSet(options.demonstrations, cache, size, lambda path: not is_held_out(path))
    validation = SampleSet(options.demonstrations, cache, size, is_held_out)
    report(
        f"reading episodes below {options.demonstrations}; new ones are decoded, a "
        "tenth of a second each"
    )
    for samples in (training, validation):
        samples.refresh(workers=options.threads)
    # an error if there is nothing to learn from
    training.draw(1, np.random.default_rng(0), options.suite_weights)
    state = start(options, config, device, training, report)
    if state.step >= options.steps and (options.out / "config.json").exists():
        report(
            f"nothing to do: step {state.step} of {options.steps} is reached; a larger "
            "--steps prolongs the run"
        )
        return state
    state.number_sentences(training.instructions + validation.instructions)
    batcher = Batcher(
        state.statistics,
        tokenizer,
        prompt,
        device,
        state.sentences,
        size // config.vision[0].patch_size,
    )
    weights = action_loss_weights(state.statistics["action"], options.gripper_weight).to(device)
    options.work_dir.mkdir(parents=True, exist_ok=True)
    (options.work_dir / "options.json").write_text(
        json.dumps(asdict(options), indent=2, default=str) + "\n"
    )
    history: list[
        tuple[float, float]
    ] = []  # (action error, auxiliary error) of each step since the last save

    def save() -> None:
        state.save(options.work_dir / "state.pt", options.decay_from)
        export(state, options, tokenizer, prompt)
        errors = held_out_errors(state.average, validation, batcher, weights, pool)
        entry = {
            "step": state.step,
            "held_out": float(np.mean(list(errors.values()))) if errors else None,
            "held_out_of_suite": errors,
            "training": float(np.mean([action for action, _ in history])) if history else None,
            "learning_rate": options.learning_rate
            * learning_rate_factor(state.step, options, state.warm_from),
            "trained_s": round(state.trained_s, 1),
            "episodes": len(training.episodes),
            "episodes_of_suite": training.episode_counts(),
            "samples": len(training),
        }
        with open(options.work_dir / "curve.jsonl", "a", encoding="utf-8") as curve:
            curve.write(json.dumps(entry) + "\n")
        plot_run(options.work_dir)
        listed = ", ".join(f"{suite} {error:.4f}" for suite, error in errors.items())
        report(
            f"step {state.step}: held-out error {listed}; saved {options.work_dir}, "
            f"exported {options.out}"
        )
        history.clear()

    report(
        f"{len(training)} samples of {training.episode_counts()} episodes, "
        f"{len(training.tasks)} tasks, {device}"
    )
    # Also in the background, where a shell has SIGINT ignored.
    handlers = {name: signal.signal(name, _interrupt) for name in (signal.SIGINT, signal.SIGTERM)}
    pool = ThreadPoolExecutor(options.threads)
    try:
        last_save = time.monotonic()
        last_report = time.monotonic()
        reported_step = state.step
        while state.step < options.steps:
            started = time.monotonic()
            seed = options.seed * 1_000_003 + state.step * options.threads
            drawn = training.draw(
                options.batch_size, np.random.default_rng(seed), options.suite_weights
            )
            shards = [
                partial(
                    batcher.batch,
                    drawn.part(i, options.threads),
                    training.tasks,
                    Augmentation(),
                    seed + i,
                )
                for i in range(options.threads)
            ]
            history.append(train_step(state, shards, weights, options, pool))
            now = time.monotonic()
            state.trained_s += now - started
            if now - last_report > REPORT_S:
                steps = state.step - reported_step
                action, auxiliary = np.mean(history[-steps:], axis=0)
                speed = steps * options.batch_size / (now - last_report)
                report(
                    f"step {state.step}/{options.steps}  action {action:.4f}  auxiliary "
                    f"{auxiliary:.4f}  {speed:.1f}/s"
                )
                last_report = now
                reported_step = state.step
            if now - last_save > options.save_minutes * 60:
                save()
                added = sum(
                    part.refresh(NEW_EPISODES_AT_ONCE, options.threads)
                    for part in (training, validation)
                )
                state.number_sentences(training.instructions + validation.instructions)
                report(
                    f"{added} new episodes; {len(training)} samples of "
                    f"{training.episode_counts()} episodes"
                )
                last_save = last_report = time.monotonic()
                reported_step = state.step
    finally:  # Ctrl-C and errors included: at most the running step is lost
        if state.step:
            save()
        pool.shutdown()
        for name, handler in handlers.items():
            signal.signal(name, handler)
    return state


def start(
    options: TrainingOptions,
    config: PolicyConfig,
    device: str,
    training: SampleSet,
    report: Callable[[str], None],
) -> TrainingState:
    """Starts where the saved state stopped, or at a pretrained checkpoint, or at step 0.

    Without fitting statistics it takes those of all episodes that are there.
    """
    state = new_state(options, config, device)
    saved = options.work_dir / "state.pt"
    if saved.exists():
        state.load(saved, options.decay_from)
        report(f"resumed {saved} at step {state.step}")
    elif options.pretrained_checkpoint is not None:
        state.adopt(load_checkpoint(options.pretrained_checkpoint))
        report(
            f"started from {options.pretrained_checkpoint} at step {state.step}; "
            "training-only heads are new"
        )
    if state.unnorm_key != options.unnorm_key or options.renormalize:
        former = (
            f", in place of {state.unnorm_key or 'unnamed'} ones; weights keep their meaning"
            * bool(state.step)
        )
        state.change_statistics(dataset_statistics(training.episodes), options.unnorm_key)
        report(f"statistics {options.unnorm_key} of {len(training.episodes)} episodes{former}")
    return state


def export(
    state: TrainingState, options: TrainingOptions, tokenizer: Tokenizer, prompt: PromptSpec
) -> None:
    """Writes the averaged weights as a checkpoint.

    Other files of the directory stay, the calibration set until the end.
    """
    kept = [options.out / "README.md", options.out / "calibration.jsonl"]
    kept += sorted((options.out / "calibration").glob("*.jpg"))
    extra = {str(path.relative_to(options.out)): path for path in kept if path.exists()}
    statistics = {options.unnorm_key: state.statistics}
    save_checkpoint(
        options.out, state.average, tokenizer, statistics, state.step, extra_files=extra
    )
    if state.step >= options.steps or not (options.out / "calibration.jsonl").exists():
        write_calibration_set(options.demonstrations, options.out, prompt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def is_held_out(path: Path) -> bool:
    """Whether an episode file belongs to the validation set, by the numbers in its name.

    One in HELD_OUT_EVERY does. Tasks from 10 on hold out other numbers each, because suites of many
    tasks have few episodes of each.
    """
    number, task_id = (int(name.rpartition("_")[2]) for name in (path.stem, path.parent.name))
    return (number + (task_id if task_id >= 10 else 0)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def held_out_errors(
    model: OpenVLAOFT,
    validation: SampleSet,
    batcher: Batcher,
    weights: Tensor,
    pool: Executor,
    count: int = 96,
) -> dict[str, float]:
    """Measures the action error of each suite on `count` held-out samples without noise.

    Units: controller units per number. The samples are the same every time, as long as no episode
    is added.
    """

    def error(samples: Samples) -> float:
        with torch.no_grad():  # of a thread
            batch = batcher.batch(samples, validation.tasks, NONE, 0)
            return float(((model(batch.inputs) - batch.chunks).abs() * weights).mean())

    errors = {}
    for suite in validation.episode_counts():
        drawn = validation.draw(count, np.random.default_rng(0), {suite: 1.0})
        errors[suite] = float(np.mean(list(pool.map(error, [drawn.part(i, 4) for i in range(4)]))))
    return errors
