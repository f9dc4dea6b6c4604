"""Tensors in files, described without being read: shards of safetensors, and the `.pt` state dicts of components.

Files are mapped, not loaded; tensors keep the dtype that they are stored in; nothing is unpickled but tensors.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from qvla_offline.torch_file import load_pt
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import parse, read_json

SINGLE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
COMPLETE = "download the checkpoint again, or name another directory with --pretrained_checkpoint"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor that has not been read. file: where it is; read: gets it, in `dtype` as stored, on the CPU."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


def main_tensors(directory: Path) -> dict[str, StoredTensor]:
    """What `model.safetensors` holds, or the shards that the index names.

    QvlaError names the file that is missing or damaged, and the tensor that is not where the index says or is twice.
    """
    index = directory / INDEX
    if not index.is_file():
        return safetensors_tensors(directory / SINGLE_FILE)
    content = read_json(index, COMPLETE)
    if not isinstance(content, dict):
        raise QvlaError(str(index), type(content).__name__, "a JSON object", COMPLETE)
    weight_map = parse(dict[str, str], content.get("weight_map"), f"{index}: weight_map", COMPLETE)
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:  # a path would read outside the directory
            raise QvlaError(f"{index}: weight_map", shard, "plain file names, beside the index", COMPLETE)
        found = safetensors_tensors(directory / shard)
        twice = sorted(set(found) & set(tensors))
        if twice:
            where = f"in {tensors[twice[0]].file.name} and in {shard}"
            raise QvlaError(f"{directory}: {twice[0]}", where, "every tensor in one shard", COMPLETE)
        tensors |= found
    for name, shard in weight_map.items():
        if name not in tensors or tensors[name].file.name != shard:
            raise QvlaError(f"{directory / shard}: {name}", "no such tensor", f"it there, as {INDEX} says", COMPLETE)
    return tensors


def safetensors_tensors(file: Path) -> dict[str, StoredTensor]:
    """What one safetensors file holds; its header is checked against its length, so a truncated file is refused."""
    if not file.is_file():
        raise QvlaError(str(file), "no such file", "weights in safetensors", COMPLETE)

    def read(name: str) -> Tensor:
        with safe_open(file, "pt") as opened:  # opened anew: the pages of a tensor are let go with it
            return opened.get_tensor(name)

    tensors = {}
    try:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                part = opened.get_slice(name)
                if part.get_dtype() not in DTYPES:
                    raise QvlaError(f"{file}: {name}", part.get_dtype(), f"one of {', '.join(DTYPES)}", COMPLETE)
                shape, dtype = tuple(part.get_shape()), DTYPES[part.get_dtype()]
                tensors[name] = StoredTensor(file, shape, dtype, lambda name=name: read(name))
    except (SafetensorError, OSError) as error:
        raise QvlaError(str(file), error, "an intact safetensors file", COMPLETE) from error
    return tensors


def component_tensors(file: Path, prefix: str) -> dict[str, StoredTensor]:
    """The state dict in a `.pt` file under `prefix.`; one leading `module.` (of DistributedDataParallel) is dropped."""

    def load() -> dict[str, Tensor]:
        state = load_pt(file, "a plain state dict of tensors", COMPLETE, mapped=zipfile.is_zipfile(file))
        if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise QvlaError(str(file), type(state).__name__, "a plain state dict of tensors", COMPLETE)
        return state

    return {
        f"{prefix}.{key.removeprefix('module.')}": StoredTensor(
            file, tuple(tensor.shape), tensor.dtype, lambda key=key: load()[key]
        )
        for key, tensor in load().items()
    }
