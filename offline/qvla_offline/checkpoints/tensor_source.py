"""The tensors of a checkpoint directory, read one at a time when asked for, so that a 7B model
never lies in memory.

Weights are in `model.safetensors`, or in shards with an index beside them; parts that OpenVLA-OFT
and UniVLA add are in `.pt` files, which are plain state dicts. A LoRA adapter is merged as its
tensors are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from qvla_offline.checkpoints import lora
from qvla_offline.checkpoints.directory import download, is_hub_id
from qvla_offline.checkpoints.stored import (
    COMPLETE,
    INDEX,
    SINGLE_FILE,
    StoredTensor,
    component_tensors,
    main_tensors,
)
from qvla_ros.errors import QvlaError

ADAPTER_FOLDER = "lora_adapter"


class TensorSource(Mapping[str, Tensor]):
    """Name -> tensor. Each access reads that tensor anew and keeps nothing.

    `stored` has the shapes without reading.
    """

    def __init__(self, stored: Mapping[str, StoredTensor]) -> None:
        self.stored = dict(stored)

    def __getitem__(self, name: str) -> Tensor:
        return self.stored[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def __contains__(self, name: object) -> bool:
        return name in self.stored  # Mapping's own would read the tensor

    def check_against(self, model: torch.nn.Module, directory: Path) -> None:
        """Raises QvlaError unless names and shapes are those of `model`. No tensor is read."""
        expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        for name, shape in expected.items():
            found = self.stored[name].shape if name in self.stored else "nothing"
            if found != shape:
                wanted = f"a tensor of shape {shape}, after config.json"
                raise QvlaError(f"{directory}: {name}", found, wanted, COMPLETE)
        unknown = sorted(set(self.stored) - set(expected))
        if unknown:
            file = self.stored[unknown[0]].file.name
            wanted = "only tensors of the model that config.json describes"
            raise QvlaError(f"{directory}: {unknown[0]}", f"a tensor in {file}", wanted, COMPLETE)


@dataclass(frozen=True)
class Origin:
    """The files of a checkpoint's weights.

    They are the directory with the safetensors, and an adapter to merge into them.
    """

    base: Path
    adapter: Path | None

    def tensors(self, without: str = "") -> dict[str, StoredTensor]:
        """The tensors by name, the adapter merged; without: see lora.with_adapter."""
        base = main_tensors(self.base)
        return base if self.adapter is None else lora.with_adapter(base, self.adapter, without)


def origin_of(directory: Path) -> Origin:
    """What to read of a checkpoint directory.

    An adapter (adapter_config.json) in the directory itself is merged into the weights beside it
    or, if there are none, into those of its base model, which must be a local directory.
    OpenVLA-OFT leaves the adapter in `lora_adapter/` beside weights that have it merged already; it
    counts only where there are no weights.
    """
    whole = (directory / SINGLE_FILE).is_file() or (directory / INDEX).is_file()
    if (directory / lora.CONFIG).is_file():
        return Origin(directory if whole else _base(directory), directory)
    adapter = directory / ADAPTER_FOLDER
    if not whole and (adapter / lora.CONFIG).is_file():
        return Origin(_base(adapter), adapter)
    return Origin(directory, None)


def config_file(directory: Path) -> Path:
    """config.json; the base model's where the directory holds an adapter and, as training leaves
    it, no config.json.
    """
    own = directory / "config.json"
    return own if own.is_file() else origin_of(directory).base / own.name


def open_tensors(
    directory: Path, components: Mapping[str, Path], without: str = ""
) -> TensorSource:
    """All tensors of a checkpoint directory: its weights, and those in the file of each component:
    `component.name`.

    without: a prefix of modules whose share of an adapter is left out, because another file has
    their weights.
    """
    tensors = origin_of(directory).tensors(without)
    for name, file in components.items():
        tensors |= component_tensors(file, name)
    return TensorSource(tensors)


def _base(adapter: Path) -> Path:
    """The directory of the model that an adapter was trained on, as its configuration names it."""
    named = lora.read_adapter_config(adapter).base_model_name_or_path
    base = adapter / (named or "")  # an absolute path stays what it is
    if named is None or not base.is_dir():
        key = f"{adapter / lora.CONFIG}: base_model_name_or_path"
        fix = "download the base model, and name its folder there"
        if named is not None and is_hub_id(named):
            fix = f"download the base model: {download(named)}, and name its folder there"
        raise QvlaError(key, named, "a local directory with the base model's weights", fix)
    return base
