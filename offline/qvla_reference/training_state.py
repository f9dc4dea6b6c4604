"""The state of a training run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.io import Checkpoint
from qvla_offline.checkpoints.openvla_oft import OpenVLAOFT
from qvla_reference.architecture import initialize
from qvla_reference.auxiliary import MAX_SENTENCES, GroundingHeads, LatestOutput, PositionHeads
from qvla_reference.renormalize import renormalize
from qvla_reference.training_options import TrainingOptions
from qvla_ros.atomic import atomic_file
from qvla_ros.errors import QvlaError


@dataclass
class TrainingState:
    """The state that a run has reached, saved whole so that it resumes exactly."""

    model: OpenVLAOFT
    heads: nn.ModuleDict  # "position", "grounding": training-only
    average: OpenVLAOFT  # exponential moving average of the weights: what is exported
    halfway: LatestOutput  # of the decoder's middle layer, of `model`
    optimizer: torch.optim.Optimizer
    statistics: dict[str, Any]
    unnorm_key: str = ""  # of the statistics
    # the rows of the grounding heads; training appends
    sentences: list[str] = field(default_factory=list)
    step: int = 0
    warm_from: int = 0  # where the latest warm-up began
    trained_s: float = 0.0  # wall-clock time spent on all updates so far

    def number_sentences(self, texts: Sequence[str]) -> None:
        """Numbers those of `texts` that have no number yet. QvlaError when there are too many."""
        self.sentences += [text for text in dict.fromkeys(texts) if text not in self.sentences]
        if len(self.sentences) > MAX_SENTENCES:
            fix = (
                "leave suites out of --demonstrations, or raise MAX_SENTENCES and "
                "train from nothing"
            )
            found = f"{len(self.sentences)} different ones"
            raise QvlaError(
                "instructions of the demonstrations", found, f"at most {MAX_SENTENCES}", fix
            )

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained."""
        return [*self.model.parameters(), *self.heads.parameters()]

    def save(self, path: Path, decay_from: int) -> None:
        """Writes the state, whole or not at all.

        decay_from: of the run so far; a later run finds by it whether the rate had decayed.
        """
        payload = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "statistics": json.dumps(self.statistics),
            "unnorm_key": self.unnorm_key,
            "sentences": list(self.sentences),
            "step": self.step,
            "warm_from": self.warm_from,
            "trained_s": self.trained_s,
            "decay_from": decay_from,
        }
        with atomic_file(path) as temporary:
            torch.save(payload, temporary)

    def load(self, path: Path, decay_from: int) -> None:
        """Continues from a saved state.

        The rate warms up anew if it had begun to fall and is not to fall yet.
        """
        payload = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(payload["model"])
        self.heads.load_state_dict(payload["heads"])
        self.average.load_state_dict(payload["average"])
        for saved, group in zip(
            payload["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True
        ):
            # options of this run
            saved.update({name: value for name, value in group.items() if name != "params"})
        self.optimizer.load_state_dict(payload["optimizer"])
        self.statistics = json.loads(payload["statistics"])
        self.unnorm_key = payload["unnorm_key"]
        self.sentences = payload["sentences"]
        self.step = payload["step"]
        self.warm_from = payload["warm_from"]
        self.trained_s = payload["trained_s"]
        if payload["decay_from"] < self.step <= decay_from:
            self.warm_from = self.step

    def adopt(self, checkpoint: Checkpoint) -> None:
        """Begins with the weights, statistics and step of an exported checkpoint.

        Heads and optimizer begin anew.
        QvlaError unless it has the architecture of this run.
        """
        weights = checkpoint.model.state_dict()
        shapes, wanted = (
            {name: tuple(tensor.shape) for name, tensor in each.items()}
            for each in (weights, self.model.state_dict())
        )
        if shapes != wanted:
            names = sorted(
                name for name in {*shapes, *wanted} if shapes.get(name) != wanted.get(name)
            )
            found = f"{names[0]} of shape {shapes.get(names[0], 'none')}, {len(names)} such tensors"
            fix = "pass a checkpoint that `qvla reference train` exported, such as reference_policy"
            raise QvlaError(
                f"pretrained_checkpoint {checkpoint.path}",
                found,
                f"{wanted.get(names[0], 'none')}",
                fix,
            )
        for model in (self.model, self.average):
            model.load_state_dict(weights)
        self.statistics = checkpoint.statistics
        self.unnorm_key = checkpoint.unnorm_key
        self.step = self.warm_from = checkpoint.step or 0

    def change_statistics(self, statistics: dict[str, Any], unnorm_key: str) -> None:
        """Goes on with other statistics.

        What the policy does in physical units stays, and the rate warms up anew.
        """
        if self.step:
            for model in (self.model, self.average):
                renormalize(model, self.statistics, statistics)
        self.statistics = statistics
        self.unnorm_key = unnorm_key
        self.warm_from = self.step


def new_state(options: TrainingOptions, config: PolicyConfig, device: str) -> TrainingState:
    """Makes step 0 of a run; the same weights for the same seed."""
    torch.manual_seed(options.seed)
    model = OpenVLAOFT(config)
    average = OpenVLAOFT(config)
    initialize(model)
    average.load_state_dict(model.state_dict())
    width = config.text.hidden_size
    heads = nn.ModuleDict({"position": PositionHeads(width), "grounding": GroundingHeads(width)})
    for module in (model, heads, average):
        module.to(device)
    layers = model.language_model.model.layers
    halfway = LatestOutput(layers[(len(layers) - 1) // 2])
    optimizer = make_optimizer(options, (model, heads))
    return TrainingState(model, heads, average.requires_grad_(False), halfway, optimizer, {})


def make_optimizer(options: TrainingOptions, modules: Sequence[nn.Module]) -> torch.optim.Optimizer:
    """Makes AdamW with weight decay on matrices only."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.98), fused=True)
