"""Adds the policy's own choices (tokens, noisy actions) to calibration samples, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import torch

from qvla_offline.checkpoints.model import PolicyInputs, VisionLanguageModel
from qvla_ros.progress import track

# a 7B decoder keeps 0.3 GB of keys and values for each, and its weights are read once per token for
# all
MOST_AT_ONCE = 8


def prepared(model: VisionLanguageModel, samples: Sequence[PolicyInputs]) -> list[PolicyInputs]:
    """Prepares each sample by `model.prepare`, equally long prompts together.

    Returns them in the order of `samples`.
    """
    by_length: dict[int, list[int]] = {}
    for index, sample in enumerate(samples):
        by_length.setdefault(sample.input_ids.shape[1], []).append(index)
    batches = [
        same[start : start + MOST_AT_ONCE]
        for same in by_length.values()
        for start in range(0, len(same), MOST_AT_ONCE)
    ]
    found: dict[int, PolicyInputs] = {}
    for batch in track(batches, "preparing samples", total=len(batches)):
        done = model.prepare(joined([samples[index] for index in batch]))
        found |= {index: _row(done, row) for row, index in enumerate(batch)}
    return [found[index] for index in range(len(samples))]


def joined(samples: Sequence[PolicyInputs]) -> PolicyInputs:
    """Puts samples with prompts of one length into one batch, in order."""
    parts = {name: [getattr(sample, name) for sample in samples] for name in _present(samples[0])}
    return replace(samples[0], **{name: torch.cat(values) for name, values in parts.items()})


def _row(batch: PolicyInputs, row: int) -> PolicyInputs:
    rows = {name: getattr(batch, name)[row : row + 1] for name in _present(batch)}
    return replace(batch, **rows)


def _present(inputs: PolicyInputs) -> list[str]:
    """Names the tensors that `inputs` holds."""
    names = [field.name for field in fields(inputs)]
    return [name for name in names if getattr(inputs, name) is not None]
