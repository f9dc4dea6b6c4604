"""Describes tensors in files without reading them.

The files are shards of safetensors, and the `.pt` state dicts of components.

Files are mapped, not loaded; tensors keep the dtype that they are stored in; nothing is unpickled
but tensors. Shards are written as they are read, one tensor at a time.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qvla_offline.torch_file import load_pt
from qvla_ros.errors import QvlaError, QvlaWarning, os_error_fix
from qvla_ros.strict_json import parse, read_json

SINGLE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_DERIVED = ("rotary_emb.inv_freq",)
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
    """One tensor that has not been read.

    file: where it is; read: gets it, in `dtype` as stored, on the CPU.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint. QvlaError for a missing file or other content."""
    content = read_json(file, COMPLETE)
    if not isinstance(content, dict):
        raise QvlaError(str(file), type(content).__name__, "a JSON object", COMPLETE)
    return content


def main_tensors(directory: Path) -> dict[str, StoredTensor]:
    """What `model.safetensors` holds, or the shards that the index names (see weights_file).

    Tables of the rotary embedding, which old versions of transformers stored, are left out: they
    follow from config.json. QvlaError names the file that is missing or damaged, and the tensor
    that is not where the index says or is twice.
    """
    file = weights_file(directory)
    found = safetensors_tensors(file) if file.name == SINGLE_FILE else _sharded_tensors(file)
    return {name: stored for name, stored in found.items() if not name.endswith(_DERIVED)}


def weights_file(directory: Path) -> Path:
    """`model.safetensors`, or else the index of the shards: the order of transformers.

    Warns where both are there. The first of them where neither is.
    """
    single = directory / SINGLE_FILE
    index = directory / INDEX
    if single.is_file() and index.is_file():
        text = f"{directory}: {SINGLE_FILE} is used, as transformers does, and {INDEX} is not"
        warnings.warn(f"{text}; remove what is stale", QvlaWarning, stacklevel=3)
    return index if index.is_file() and not single.is_file() else single


def _sharded_tensors(index: Path) -> dict[str, StoredTensor]:
    directory = index.parent
    content = read_object(index)
    weight_map = parse(dict[str, str], content.get("weight_map"), f"{index}: weight_map", COMPLETE)
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:  # a path would read outside the directory
            raise QvlaError(
                f"{index}: weight_map", shard, "plain file names, beside the index", COMPLETE
            )
        found = safetensors_tensors(directory / shard)
        twice = sorted(set(found) & set(tensors))
        if twice:
            where = f"in {tensors[twice[0]].file.name} and in {shard}"
            raise QvlaError(
                f"{directory}: {twice[0]}", where, "every tensor in one shard", COMPLETE
            )
        tensors |= found
    for name, shard in weight_map.items():
        if name not in tensors or tensors[name].file.name != shard:
            raise QvlaError(
                f"{directory / shard}: {name}",
                "no such tensor",
                f"it there, as {INDEX} says",
                COMPLETE,
            )
    return tensors


def safetensors_tensors(file: Path) -> dict[str, StoredTensor]:
    """Describes the tensors of one safetensors file.

    Its header is checked against its length, so a truncated file is refused.
    """
    if not file.is_file():
        raise QvlaError(str(file), "no such file", "weights in safetensors", _how_to_get(file))

    def read(name: str) -> Tensor:
        # opened anew: the pages of a tensor are let go with it
        with safe_open(file, "pt") as opened:
            return opened.get_tensor(name)

    tensors = {}
    try:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                part = opened.get_slice(name)
                if part.get_dtype() not in DTYPES:
                    raise QvlaError(
                        f"{file}: {name}", part.get_dtype(), f"one of {', '.join(DTYPES)}", COMPLETE
                    )
                shape = tuple(part.get_shape())
                dtype = DTYPES[part.get_dtype()]
                tensors[name] = StoredTensor(file, shape, dtype, partial(read, name))
    except OSError as error:
        raise QvlaError(str(file), error, "a file to read", os_error_fix(error)) from error
    except SafetensorError as error:
        raise QvlaError(str(file), error, "an intact safetensors file", COMPLETE) from error
    return tensors


def _how_to_get(file: Path) -> str:
    """How to come by weights that are not there."""
    if any(file.parent.glob("pytorch_model*.bin")):
        return (
            "convert pytorch_model.bin, which is not read: load the checkpoint with transformers, "
            "and save_pretrained(DIR, safe_serialization=True)"
        )
    return COMPLETE


def component_tensors(file: Path, prefix: str) -> dict[str, StoredTensor]:
    """The state dict in a `.pt` file under `prefix.`.

    One leading `module.` (of DistributedDataParallel) is dropped.
    """

    def read(key: str) -> Tensor:
        return state_dict(file)[key].clone()  # the state dict may be in use elsewhere

    return {
        f"{prefix}.{key.removeprefix('module.')}": StoredTensor(
            file, tuple(tensor.shape), tensor.dtype, partial(read, key)
        )
        for key, tensor in state_dict(file).items()
    }


def state_dict(file: Path) -> dict[str, Tensor]:
    """The tensors in a `.pt` file, mapped.

    Shared with other callers, so not to be changed in place.
    """
    return _state_dict(file, file.stat().st_mtime_ns if file.is_file() else 0)


@lru_cache(
    maxsize=1
)  # one at a time, since the pages that were read count as memory while the file is held
def _state_dict(file: Path, mtime_ns: int) -> dict[str, Tensor]:
    state = load_pt(
        file, "a plain state dict of tensors", COMPLETE, mapped=zipfile.is_zipfile(file)
    )
    plain = isinstance(state, dict) and all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    )
    if not plain:
        raise QvlaError(str(file), type(state).__name__, "a plain state dict of tensors", COMPLETE)
    return {name: tensor.detach() for name, tensor in state.items()}  # some save Parameters


def write_safetensors(
    file: Path,
    kinds: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a safetensors file, taking tensors one by one, in the order of `kinds`: {name: (shape,
    dtype)}.

    Wide types must come first, as the library itself has them: it wants every tensor aligned to its
    type. The format: the length of the header, the header (where each tensor lies), then the
    tensors.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    codes = {dtype: code for code, dtype in DTYPES.items()}
    end = 0
    for name, (shape, dtype) in kinds.items():
        start = end
        end = end + torch.Size(shape).numel() * dtype.itemsize
        if start % dtype.itemsize:
            raise ValueError(f"{name} of {dtype} after narrower tensors")
        header[name] = {"dtype": codes[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for (expected, kind), (name, tensor) in zip(kinds.items(), tensors, strict=True):
            if (name, tuple(tensor.shape), tensor.dtype) != (expected, *kind):
                raise ValueError(
                    f"{name} {tuple(tensor.shape)} {tensor.dtype} in place of {expected} {kind}"
                )
            out.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
