"""The options of a training run, which are those of `qvla reference train`. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qvla_offline.option_fields import option


@dataclass(frozen=True)
class TrainingOptions:
    """The options of a run; with the demonstrations they determine it.

    suite_weights: see SampleSet.draw. rewarm_steps: updates over which the rate rises when a run
    goes on at another rate or with other statistics.
    """

    demonstrations: Path = option(Path("data/demonstrations"), "folder of episodes")
    out: Path = option(Path("reference_policy"), "checkpoint directory to export to")
    work_dir: Path = option(Path("out/training"), "state, image cache, curve")
    pretrained_checkpoint: Path | None = option(
        None,
        "begin with the weights and the step of this checkpoint, if --work_dir holds no run to go "
        "on with",
    )
    unnorm_key: str = option(
        "libero", "name of the statistics; another name than before makes them anew"
    )
    renormalize: bool = option(False, "make the statistics anew from all episodes")
    suite_weights: Mapping[str, float] | None = None
    steps: int = option(8000, "updates in all; a larger number prolongs a run")
    decay_steps: int = option(2000, "last steps, over which the rate falls linearly to zero")
    batch_size: int = option(32, "samples an update")
    learning_rate: float = option(1e-3, "learning rate after the warm-up")
    precision: Literal["bfloat16", "float32"] = option("bfloat16", "type of the matrix products")
    save_minutes: float = option(4.0, "time between saves, at which new episodes are picked up too")
    threads: int = option(2, "shards of a batch that run side by side")
    seed: int = option(0, "the draw of samples and the first weights follow from it")
    warmup_steps: int = 300
    rewarm_steps: int = 100
    weight_decay: float = 0.05
    ema_decay: float = 0.998
    gripper_weight: float = 0.7
    auxiliary_weight: float = 0.5

    @property
    def decay_from(self) -> int:
        """Returns the update at which the learning rate begins to fall."""
        return self.steps - self.decay_steps
