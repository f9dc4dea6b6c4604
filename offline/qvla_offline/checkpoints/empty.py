"""Policies without weights: to be filled from files, or for their names and shapes alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.family import family_of
from qvla_offline.checkpoints.model import VisionLanguageModel


def new_model(config: PolicyConfig) -> VisionLanguageModel:
    """The policy with torch's starting weights."""
    return family_of(config.decoding.kind).network(config)


def empty_model(config: PolicyConfig) -> VisionLanguageModel:
    """The policy with every tensor on the meta device."""
    with torch.device("meta"), _NoInitialisation():
        return new_model(config)


class _NoInitialisation(TorchFunctionMode):
    """Leaves tensors as they are where torch.nn.init would fill them.

    Without storage there is nothing to fill.

    On meta tensors torch draws random numbers by Python kernels, whose first use imports its
    compiler (seconds).
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else named["tensor"]
        return func(*args, **named)
