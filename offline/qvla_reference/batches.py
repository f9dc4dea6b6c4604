"""Turns samples into network inputs and target actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.checkpoints.save import IMAGENET, SYMMETRIC
from qvla_offline.checkpoints.tokenizer import pad_token_id
from qvla_offline.robot import LIBERO
from qvla_reference.agentview import camera_of, patch_shares, picture_coordinates
from qvla_reference.augment import Augmentation, crop_images, normalize_pixels
from qvla_reference.samples import DemonstratedTask, TrainingSamples
from qvla_ros.bundle import PromptSpec
from qvla_ros.preprocess import RANGE_EPSILON, normalize_proprioception, prompt_ids

CROP_AREA = LIBERO.center_crop_area or 1.0
MEANS, STDS = (torch.tensor([pair[part] for pair in (IMAGENET, SYMMETRIC)]) for part in (0, 1))


@dataclass(frozen=True)
class Batch:
    """Inputs of the network and the answers that it is to give.

    The answers: normalised chunks [B, 8, 7], positions of object and goal from the hand [B, 2, 3]
    m, the object's share of each agentview patch [B, n], the number of the sentence int64 [B].
    """

    inputs: PolicyInputs
    chunks: Tensor
    positions_m: Tensor
    patch_shares: Tensor
    sentence: Tensor


class Batcher:
    """Turns samples into batches with one dataset's statistics and one tokenizer."""

    def __init__(
        self,
        statistics: Mapping[str, Any],
        tokenizer: Tokenizer,
        prompt: PromptSpec,
        device: str,
        sentences: Sequence[str],
        patches_per_side: int,
    ) -> None:
        """sentences: numbered by their places; the caller may append to the list."""
        self.statistics = statistics
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.device = device
        self._prompts: dict[str, np.ndarray] = {}
        self._sentences = sentences
        self.patches_per_side = patches_per_side

    def batch(
        self,
        samples: TrainingSamples,
        tasks: Sequence[DemonstratedTask],
        augmentation: Augmentation,
        seed: int,
    ) -> Batch:
        """Makes one batch; `samples.task` counts in `tasks`, and all noise follows from `seed`."""
        generator = torch.Generator().manual_seed(seed)
        images = torch.from_numpy(samples.images).to(self.device)
        cropped = crop_images(images, CROP_AREA, augmentation, generator)
        pixels = normalize_pixels(cropped, MEANS.to(self.device), STDS.to(self.device))
        low, high = (self.statistics["proprio"][name] for name in ("q01", "q99"))
        proprio = torch.from_numpy(
            normalize_proprioception(samples.proprio, low, high).astype(np.float32)
        )
        proprio = proprio + augmentation.proprio_std * torch.randn(
            proprio.shape, generator=generator
        )
        texts = [tasks[task].instruction for task in samples.task]
        ids, mask = self._padded_prompts(texts)
        chunks = normalize_actions(samples.chunks, self.statistics["action"])
        positions = np.stack([samples.object_from_eef_m, samples.goal_from_eef_m], axis=1)
        return Batch(
            inputs=PolicyInputs(pixels, ids, proprio.clamp(-1.0, 1.0), mask).to(self.device),
            chunks=torch.from_numpy(chunks).to(self.device),
            positions_m=torch.from_numpy(positions).to(self.device),
            patch_shares=torch.from_numpy(self._patch_shares(samples, tasks)).to(self.device),
            sentence=torch.tensor(
                [self._sentences.index(text) for text in texts], device=self.device
            ),
        )

    def _patch_shares(
        self, samples: TrainingSamples, tasks: Sequence[DemonstratedTask]
    ) -> np.ndarray:
        points_m = samples.object_from_eef_m + samples.proprio[:, :3]
        suites = np.array([tasks[task].suite for task in samples.task])
        coordinates = np.zeros((len(samples), 2))
        for suite in set(suites):
            of_suite = suites == suite
            coordinates[of_suite] = picture_coordinates(
                points_m[of_suite], camera_of(suite), CROP_AREA
            )
        return patch_shares(coordinates, self.patches_per_side)

    def _padded_prompts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        for text in set(texts) - set(self._prompts):
            self._prompts[text] = prompt_ids(self.prompt, self.tokenizer, text)[0]
        rows = [self._prompts[text] for text in texts]
        lengths = np.array([len(row) for row in rows])
        mask = np.arange(lengths.max())[None] < lengths[:, None]
        ids = np.full(mask.shape, pad_token_id(self.tokenizer), np.int64)
        ids[mask] = np.concatenate(rows)
        return torch.from_numpy(ids), None if mask.all() else torch.from_numpy(mask)


def normalize_actions(actions: np.ndarray, statistics: Mapping[str, Any]) -> np.ndarray:
    """Inverts OpenVLA-OFT's un-normalisation, clipped to [-1, 1], float32.

    Columns without mask stay as they are.
    """
    low, high = (np.array(statistics[name]) for name in ("q01", "q99"))
    normalized = np.clip(2.0 * (actions - low) / (high - low + RANGE_EPSILON) - 1.0, -1.0, 1.0)
    return np.where(np.array(statistics["mask"]), normalized, actions).astype(np.float32)


def action_loss_weights(statistics: Mapping[str, Any], gripper_weight: float) -> Tensor:
    """Returns factors [7] that turn an error in normalised units into one in controller units.

    With them no idle axis outweighs another.
    """
    low, high = (np.array(statistics[name]) for name in ("q01", "q99"))
    weights = np.where(np.array(statistics["mask"]), (high - low) / 2.0, gripper_weight)
    return torch.tensor(weights, dtype=torch.float32)
