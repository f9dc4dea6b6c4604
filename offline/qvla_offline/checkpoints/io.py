"""Loads checkpoint directories of any family.

config.json, model*.safetensors (one file or shards with an index), tokenizer.json,
preprocessor_config.json, dataset_statistics.json, and per component `<name>--<step>_checkpoint.pt`:
a plain state dict whose keys begin with `module.`, as DistributedDataParallel saves them. Nothing
is unpickled but tensors, and no code of a checkpoint is run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.empty import empty_model
from qvla_offline.checkpoints.family import Family, family_of, read_layout
from qvla_offline.checkpoints.model import VisionLanguageModel
from qvla_offline.checkpoints.preprocessor import Normalization, read_normalizations
from qvla_offline.checkpoints.prompt import checkpoint_tokenizer
from qvla_offline.checkpoints.statistics import choose_statistics
from qvla_offline.checkpoints.stored import read_object
from qvla_offline.checkpoints.tensor_source import TensorSource, config_file
from qvla_offline.finite import warn_of_zeros
from qvla_ros.bundle import PromptSpec
from qvla_ros.errors import QvlaError


@dataclass(frozen=True)
class Checkpoint:
    """A loaded policy and all that is needed to feed it.

    statistics: {"action": {...}, "proprio": {...}} of `unnorm_key`; normalizations: (mean, std) per
    vision backbone, in the order of the channels of `pixel_values`; model: in eval mode, float32
    unless asked otherwise, on the meta device if opened lazily; tensors: its weights as they are
    stored.
    """

    path: Path
    family: Family
    config: PolicyConfig
    model: VisionLanguageModel
    tensors: TensorSource
    tokenizer: Tokenizer
    prompt: PromptSpec
    statistics: dict[str, Any]
    unnorm_key: str
    normalizations: tuple[Normalization, ...]
    step: int | None


def load_checkpoint(
    path: str | Path,
    unnorm_key: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    lazily: bool = False,
) -> Checkpoint:
    """Loads a checkpoint directory of any family.

    `unnorm_key` may be omitted when it holds one dataset's statistics.

    lazily: check everything, but leave the model without weights (on the meta device); they are in
    `tensors`.

    Raises QvlaError naming the file or key for anything missing, corrupt, of another shape or
    ambiguous.
    """
    check_device(device)
    directory = Path(path)
    layout = read_layout(directory)
    config = layout.config
    family = family_of(config.decoding.kind)
    data = read_object(config_file(directory))
    key, statistics = choose_statistics(
        directory,
        data.get("norm_stats"),
        unnorm_key,
        family.statistics_lengths(config.decoding),
        config.decoding.normalization,
    )
    if family.action_dim_from_statistics:
        config = replace(
            config, decoding=replace(config.decoding, action_dim=len(statistics["action"]["min"]))
        )
    normalizations = read_normalizations(directory, config)
    tokenizer = checkpoint_tokenizer(directory)
    prompt = family.prompt(directory, data, tokenizer)

    tensors = layout.open_tensors()
    model = empty_model(config)
    tensors.check_against(model, directory)
    if not lazily:
        _load_weights(model, tensors, family, dtype, device)
    return Checkpoint(
        path=directory,
        family=family,
        config=config,
        model=model.eval().requires_grad_(False),
        tensors=tensors,
        tokenizer=tokenizer,
        prompt=prompt,
        statistics=statistics,
        unnorm_key=key,
        normalizations=normalizations,
        step=layout.step,
    )


def _load_weights(
    model: VisionLanguageModel,
    tensors: TensorSource,
    family: Family,
    dtype: torch.dtype,
    device: str,
) -> None:
    """Gives an empty model its weights in `dtype`, or float32 where the family needs that."""
    wide = family.float32_modules
    kinds = {name: torch.float32 if name.startswith(wide) else dtype for name in tensors}
    loaded = {name: tensors[name].to(device=device, dtype=kind) for name, kind in kinds.items()}
    for name, tensor in loaded.items():
        warn_of_zeros(name, tensor)
    model.load_state_dict(loaded, assign=True)


def check_device(device: str) -> None:
    """Raises QvlaError unless torch can compute on `device`; torch fails only after loading."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        expected = "cpu, or cuda where torch finds a GPU"
        raise QvlaError("device", f"{device} ({reason})", expected, "use --device cpu") from None


def empty_policy(path: str | Path) -> VisionLanguageModel:
    """The policy of a checkpoint directory without its weights (all on the meta device)."""
    return empty_model(read_layout(Path(path)).config)
