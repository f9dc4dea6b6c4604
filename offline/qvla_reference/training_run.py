"""A training run that is under way: updates, saves, new episodes and printed progress."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor

from qvla_offline.checkpoints.save import save_checkpoint
from qvla_reference.augment import Augmentation
from qvla_reference.batches import Batcher
from qvla_reference.calibration_set import write_calibration_set
from qvla_reference.samples import SampleSet
from qvla_reference.training_options import TrainingOptions
from qvla_reference.training_plot import plot_run
from qvla_reference.training_state import TrainingState
from qvla_reference.update import learning_rate_factor, train_step
from qvla_reference.validation import held_out_errors
from qvla_ros.bundle import PromptSpec

REPORT_S = 20.0
# decoding must not keep training waiting for long; the rest follows at the next save
NEW_EPISODES_AT_ONCE = 200


@dataclass
class TrainingRun:
    """A run that is under way: its data, its state, and what it has measured since the last save.

    weights: see action_loss_weights. history: (action error, auxiliary error) of each update since
    the last save.
    """

    options: TrainingOptions
    state: TrainingState
    training: SampleSet
    validation: SampleSet
    tokenizer: Tokenizer
    prompt: PromptSpec
    batcher: Batcher
    weights: Tensor
    report: Callable[[str], None]
    history: list[tuple[float, float]] = field(default_factory=list)

    def update(self, pool: Executor) -> None:
        """Draws one batch, by the number of the update alone, and updates the weights with it."""
        started = time.monotonic()
        options = self.options
        seed = options.seed * 1_000_003 + self.state.step * options.threads
        generator = np.random.default_rng(seed)
        drawn = self.training.draw(options.batch_size, generator, options.suite_weights)
        shards = [
            partial(
                self.batcher.batch,
                drawn.part(i, options.threads),
                self.training.tasks,
                Augmentation(),
                seed + i,
            )
            for i in range(options.threads)
        ]
        self.history.append(train_step(self.state, shards, self.weights, options, pool))
        self.state.trained_s += time.monotonic() - started

    def save(self, pool: Executor) -> None:
        """Saves the state, exports the average, and adds a line and the plot of the errors."""
        options = self.options
        state = self.state
        state.save(options.work_dir / "state.pt", options.decay_from)
        export(state, options, self.tokenizer, self.prompt)
        errors = held_out_errors(state.average, self.validation, self.batcher, self.weights, pool)
        with open(options.work_dir / "curve.jsonl", "a", encoding="utf-8") as curve:
            curve.write(json.dumps(self._measured(errors)) + "\n")
        plot_run(options.work_dir)
        listed = ", ".join(f"{suite} {error:.4f}" for suite, error in errors.items())
        self.report(
            f"step {state.step}: held-out error {listed}; saved {options.work_dir}, "
            f"exported {options.out}"
        )
        self.history.clear()

    def _measured(self, errors: Mapping[str, float]) -> dict[str, Any]:
        """Returns the line of curve.jsonl; errors: held-out, of each suite."""
        state = self.state
        factor = learning_rate_factor(state.step, self.options, state.warm_from)
        actions = [action for action, _ in self.history]
        return {
            "step": state.step,
            "held_out": float(np.mean(list(errors.values()))) if errors else None,
            "held_out_of_suite": errors,
            "training": float(np.mean(actions)) if actions else None,
            "learning_rate": self.options.learning_rate * factor,
            "trained_s": round(state.trained_s, 1),
            "episodes": len(self.training.episodes),
            "episodes_of_suite": self.training.episode_counts(),
            "samples": len(self.training),
        }

    def take_new_episodes(self) -> None:
        """Adds the episodes that were recorded since, up to NEW_EPISODES_AT_ONCE a set."""
        added = sum(
            part.refresh(NEW_EPISODES_AT_ONCE, self.options.threads)
            for part in (self.training, self.validation)
        )
        self.state.number_sentences(self.training.instructions + self.validation.instructions)
        self.report(
            f"{added} new episodes; {len(self.training)} samples of "
            f"{self.training.episode_counts()} episodes"
        )


@dataclass
class Progress:
    """The printed lines about errors and speed, one each REPORT_S."""

    run: TrainingRun
    step: int = 0
    reported_s: float = 0.0  # of the monotonic clock

    def restart(self) -> None:
        """Begins to count anew at the run's present step."""
        self.step = self.run.state.step
        self.reported_s = time.monotonic()

    def report_if_due(self) -> None:
        """Prints the mean errors since the last line, and samples per second."""
        elapsed_s = time.monotonic() - self.reported_s
        if elapsed_s <= REPORT_S:
            return
        options = self.run.options
        steps = self.run.state.step - self.step
        action, auxiliary = np.mean(self.run.history[-steps:], axis=0)
        speed = steps * options.batch_size / elapsed_s
        self.run.report(
            f"step {self.run.state.step}/{options.steps}  action {action:.4f}  auxiliary "
            f"{auxiliary:.4f}  {speed:.1f}/s"
        )
        self.restart()


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
