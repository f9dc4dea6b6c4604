"""LoRA adapters, merged into the weights as these are read: W + scaling * B A.

Names, files and rounding are those of the peft library: factors are multiplied and added in their
own dtype, so that a bfloat16 adapter gives bit for bit what `merge_and_unload` leaves in a
checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from qvla_offline.checkpoints.known_keys import ADAPTER
from qvla_offline.checkpoints.stored import StoredTensor, safetensors_tensors
from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import parse, read_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_FIX = "merge it with the tools that trained it, and name the merged checkpoint"
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class AdapterConfig:
    """The part of adapter_config.json that says how factors become weights.

    The defaults are peft's.
    """

    r: int = 8
    lora_alpha: float = 8.0
    use_rslora: bool = False
    base_model_name_or_path: str | None = None

    @property
    def scaling(self) -> float:
        """What B A is multiplied by: alpha / r, or alpha / sqrt(r) with rank stabilisation."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


def read_adapter_config(directory: Path) -> AdapterConfig:
    """adapter_config.json of an adapter's directory.

    QvlaError for a kind of adapter that is not plain LoRA.
    """
    file = directory / CONFIG
    content = read_json(file, _FIX)
    if not isinstance(content, dict):
        raise QvlaError(str(file), type(content).__name__, "a JSON object", _FIX)
    ADAPTER.check(content, f"{file}: ")
    known = {
        name: content[name]
        for name in AdapterConfig.__dataclass_fields__
        if content.get(name) is not None
    }
    config = parse(AdapterConfig, known, str(file), _FIX)
    if config.r < 1:
        raise QvlaError(f"{file}: r", config.r, "a rank of 1 or more", _FIX)
    return config


def with_adapter(
    base: Mapping[str, StoredTensor], directory: Path, without: str = ""
) -> dict[str, StoredTensor]:
    """`base` with the adapter in `directory` merged.

    QvlaError for factors that fit no weight of `base`.

    without: a prefix of modules whose factors are left out, if it is not empty. What comes out lies
    in the files of `base`, in its types, also where the adapter holds a layer's own weight.
    """
    config = read_adapter_config(directory)
    stored = safetensors_tensors(directory / WEIGHTS)
    adapter = {name.removeprefix(_PREFIX): part for name, part in stored.items()}
    if without:
        adapter = {name: part for name, part in adapter.items() if not name.startswith(without)}
    _require_rank(adapter, config.r, directory / WEIGHTS)
    placed = {
        name: _in_place_of(base.get(_plain_name(name)), part) for name, part in adapter.items()
    }
    return merged({**base, **placed}, config.scaling)


def _require_rank(adapter: Mapping[str, StoredTensor], rank: int, file: Path) -> None:
    """Raises QvlaError unless every first factor has `rank` rows: the scaling is made for that."""
    for name, part in adapter.items():
        if ".lora_A." in name and part.shape[0] != rank:
            found = f"{rank}, but {name} has {part.shape[0]} rows"
            raise QvlaError(f"{file.parent / CONFIG}: r", found, "the rank of the factors", _FIX)


def _plain_name(name: str) -> str:
    """What a tensor of a wrapped layer is called in the model without an adapter."""
    return name.replace(".base_layer.", ".")


def _in_place_of(base: StoredTensor | None, own: StoredTensor) -> StoredTensor:
    """A layer's own weight where the base has it and in its type: peft copies it into the base's
    parameter.
    """
    if base is None:
        return own
    return StoredTensor(base.file, own.shape, base.dtype, lambda: own.read().to(base.dtype))


def merged(
    tensors: Mapping[str, StoredTensor], scaling: float, dtype: torch.dtype | None = None
) -> dict[str, StoredTensor]:
    """The tensors with every `M.lora_A` and `M.lora_B` merged into `M.weight`, and `M.base_layer.X`
    renamed to `M.X`.

    So the state dict of a wrapped, un-merged model becomes that of the plain one. Also takes
    factors that carry the adapter's name (`M.lora_A.default.weight`). dtype: of the merged weights;
    None merges as peft does, in their own.
    """
    plain: dict[str, StoredTensor] = {}
    factors: dict[str, dict[str, StoredTensor]] = {}
    wrapped = {}
    for name, stored in tensors.items():
        module, found, _ = (
            name.partition(".lora_A.") if ".lora_A." in name else name.partition(".lora_B.")
        )
        if found:
            factors.setdefault(module, {})[found.strip(".")] = stored
        elif ".base_layer." in name:
            wrapped[_plain_name(name)] = stored
        else:
            plain[name] = stored
    plain |= wrapped  # an adapter that holds a layer's own weight replaces the base's
    for module, pair in factors.items():
        plain[f"{module}.weight"] = _merged(
            module, plain.get(f"{module}.weight"), pair, scaling, dtype
        )
    return plain


def _merged(
    module: str,
    base: StoredTensor | None,
    pair: Mapping[str, StoredTensor],
    scaling: float,
    dtype: torch.dtype | None,
) -> StoredTensor:
    file = next(iter(pair.values())).file
    if base is None:
        raise QvlaError(
            f"{file}: {module}", "no such layer in the base", "an adapter of this checkpoint", _FIX
        )
    if set(pair) != {"lora_A", "lora_B"}:
        raise QvlaError(f"{file}: {module}", " ".join(pair), "lora_A and lora_B", _FIX)
    first = pair["lora_A"]
    second = pair["lora_B"]
    if (second.shape[0], *first.shape[1:]) != base.shape or second.shape[1] != first.shape[0]:
        found = f"B {second.shape} A {first.shape}"
        wanted = f"factors of a weight of shape {base.shape}"
        raise QvlaError(f"{file}: {module}", found, wanted, _FIX)

    def read() -> Tensor:
        weight, down, up = (
            part.read() if dtype is None else part.read().to(dtype)
            for part in (base, first, second)
        )
        return merged_weight(weight, down, up, scaling)

    return StoredTensor(base.file, base.shape, dtype or base.dtype, read)


def merged_weight(weight: Tensor, first: Tensor, second: Tensor, scaling: float) -> Tensor:
    """weight + scaling * second @ first, in the dtype of `weight`.

    A convolution's factors are flattened from dim 1.

    The product is rounded to the factors' dtype, then scaled and rounded, then added and rounded,
    as peft does (but float16, which it widens to float32 on a CPU).
    """
    wide = torch.float32 if first.dtype == torch.float16 else first.dtype
    change = (second.to(wide).flatten(1) @ first.to(wide).flatten(1)) * scaling
    return weight.clone().add_(change.to(first.dtype).reshape(weight.shape))
