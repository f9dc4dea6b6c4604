"""A policy with random weights in memory."""

from __future__ import annotations

from typing import Any

import torch

from qvla_offline.checkpoints.empty import new_model
from qvla_offline.checkpoints.random_checkpoint import (
    decoding_of,
    random_config,
    random_tokenizer,
    randomize,
)
from qvla_offline.checkpoints.tokenizer import pad_token_id, padded_vocabulary


def random_model(size: str = "tiny", seed: int = 0, family: str = "openvla_oft") -> Any:
    """A policy in eval mode, float32, equal for equal seeds."""
    tokenizer = random_tokenizer(family)
    config = random_config(
        size, padded_vocabulary(tokenizer), pad_token_id(tokenizer), decoding_of(family)
    )
    model = new_model(config)
    randomize(model, torch.Generator().manual_seed(seed))
    return model.eval().requires_grad_(False)
