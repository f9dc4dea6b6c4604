"""Trains the bundled policy by behaviour cloning: L1 on normalised chunks.

Training resumes exactly, and exports a checkpoint at every save.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import torch

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.results import require_result_replaceable
from qvla_offline.checkpoints.tokenizer import PROMPT_TEMPLATE, train_tokenizer
from qvla_reference.architecture import reference_config
from qvla_reference.batches import Batcher, action_loss_weights
from qvla_reference.samples import SampleSet, dataset_statistics
from qvla_reference.training_options import TrainingOptions
from qvla_reference.training_run import Progress, TrainingRun
from qvla_reference.training_state import TrainingState, new_state
from qvla_reference.update import training_arithmetic
from qvla_reference.validation import is_held_out
from qvla_ros.bundle import PromptSpec


@training_arithmetic()
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
    run = _begin(options, report, config)
    state = run.state
    if state.step >= options.steps and (options.out / "config.json").exists():
        report(
            f"nothing to do: step {state.step} of {options.steps} is reached; a larger "
            "--steps prolongs the run"
        )
        return state
    state.number_sentences(run.training.instructions + run.validation.instructions)
    options.work_dir.mkdir(parents=True, exist_ok=True)
    described = json.dumps(asdict(options), indent=2, default=str)
    (options.work_dir / "options.json").write_text(described + "\n")
    report(
        f"{len(run.training)} samples of {run.training.episode_counts()} episodes, "
        f"{len(run.training.tasks)} tasks, {run.batcher.device}"
    )
    _update_to_the_end(run)
    return state


def _begin(
    options: TrainingOptions, report: Callable[[str], None], config: PolicyConfig | None
) -> TrainingRun:
    """Reads the episodes and starts the state; QvlaError if there is nothing to learn from."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = train_tokenizer()
    prompt = PromptSpec(PROMPT_TEMPLATE, lowercase=True, append_token_id=tokenizer.token_to_id("▁"))
    config = config or reference_config(tokenizer)
    size = config.vision[0].image_size
    training, validation = _read_episodes(options, size, report)
    state = start(options, config, device, training, report)
    patches_per_side = size // config.vision[0].patch_size
    batcher = Batcher(
        state.statistics, tokenizer, prompt, device, state.sentences, patches_per_side
    )
    weights = action_loss_weights(state.statistics["action"], options.gripper_weight).to(device)
    return TrainingRun(
        options, state, training, validation, tokenizer, prompt, batcher, weights, report
    )


def _read_episodes(
    options: TrainingOptions, size: int, report: Callable[[str], None]
) -> tuple[SampleSet, SampleSet]:
    """Returns the samples to train on and those that are held out; size: of images, pixels."""
    cache = options.work_dir / "cache"
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
    return training, validation


def _update_to_the_end(run: TrainingRun) -> None:
    """Updates until `options.steps`, with saves every few minutes and at the end."""
    options = run.options
    with _interruptible(), ThreadPoolExecutor(options.threads) as pool:
        try:
            saved_s = time.monotonic()
            progress = Progress(run)
            progress.restart()
            while run.state.step < options.steps:
                run.update(pool)
                progress.report_if_due()
                if time.monotonic() - saved_s > options.save_minutes * 60:
                    run.save(pool)
                    run.take_new_episodes()
                    saved_s = time.monotonic()
                    progress.restart()
        finally:  # Ctrl-C and errors included: at most the running step is lost
            if run.state.step:
                run.save(pool)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM raise KeyboardInterrupt while the context lasts.

    Also in the background, where a shell has SIGINT ignored.
    """
    handlers = {name: signal.signal(name, _interrupt) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


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
