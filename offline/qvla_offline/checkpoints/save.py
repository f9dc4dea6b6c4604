"""Writes checkpoint directories of any family, one tensor at a time.

Weights go to `model.safetensors`, or to shards with an index; the parts that OpenVLA-OFT and UniVLA
add go to `.pt` files: OFT's with keys that begin with `module.`, as DistributedDataParallel saves
them, and the ViTs that FiLM conditions wrapped as they are in training (see `film_state`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from qvla_offline.checkpoints.backbones import BACKBONES
from qvla_offline.checkpoints.config import PolicyConfig, config_json
from qvla_offline.checkpoints.empty import empty_model
from qvla_offline.checkpoints.family import Family, family_of
from qvla_offline.checkpoints.film import FILM_PART, film_state, is_film_layer
from qvla_offline.checkpoints.layout import Part
from qvla_offline.checkpoints.model import VisionLanguageModel
from qvla_offline.checkpoints.results import result_directory
from qvla_offline.checkpoints.stored import INDEX, SINGLE_FILE, write_safetensors
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.checkpoints.tokenizer import pad_token_id

# (mean, std) of ImageNet and of SigLIP, rounded to bfloat16 as OpenVLA's converter left them in the
# published files.
IMAGENET = ((0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375))
SYMMETRIC = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SHARD_BYTES = 5 * 10**9  # of transformers' save_pretrained


@dataclass(frozen=True)
class Belongings:
    """The files of a checkpoint directory other than the weights.

    dataset_statistics: {dataset key: {"action": ..., ...}}.

    step: of the training, in the names of the parts. extra_files: {name: source}. released: leave
    out of config.json what released ones do not state.
    """

    tokenizer: Tokenizer
    dataset_statistics: Mapping[str, Any]
    step: int | str
    extra_files: Mapping[str, Path] | None = None
    released: bool = False


def save_checkpoint(
    path: str | Path,
    model: VisionLanguageModel,
    tokenizer: Tokenizer,
    dataset_statistics: Mapping[str, Any],
    step: int | str,
    dtype: torch.dtype = torch.float16,
    extra_files: Mapping[str, Path] | None = None,
) -> None:
    """Writes the directory of a model in memory, or nothing."""
    belongings = Belongings(tokenizer, dataset_statistics, step, extra_files=extra_files)
    write_checkpoint(path, model.config, model.state_dict().items(), belongings, dtype)


def write_checkpoint(
    path: str | Path,
    config: PolicyConfig,
    tensors: Iterable[tuple[str, Tensor]],
    belongings: Belongings,
    dtype: torch.dtype,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a directory, or nothing.

    tensors: (name, tensor) in the order of the model's state dict, taken one by one.

    It takes the place of an earlier result of its kind alone, random (`released`) or trained: see
    `result_directory`. Only the parts are held in memory until they are complete (and with FiLM the
    ViTs).
    """
    model = empty_model(config)
    family = family_of(config.decoding.kind)
    parts = family.parts(config.decoding)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    stream: Iterator[tuple[str, Tensor]] = (
        (name, tensor.detach().to("cpu", dtype)) for name, tensor in tensors
    )
    with result_directory(path, "random" if belongings.released else "trained") as directory:
        in_parts = tuple(f"{part.name}." for part in parts)
        main = [
            name for name in shapes if not name.startswith(in_parts) and not is_film_layer(name)
        ]
        film: dict[str, Tensor] = {}
        if config.decoding.film:
            stream = _keep(stream, f"{FILM_PART}.", film)
        _write_shards(directory, {name: shapes[name] for name in main}, dtype, stream, shard_bytes)
        _write_parts(directory, family, parts, dict(stream), belongings.step)
        if film:
            wrapped = {name for name in quantization_targets(model) if name.startswith(FILM_PART)}
            torch.save(
                film_state(film, wrapped),
                directory / f"{FILM_PART}--{belongings.step}_checkpoint.pt",
            )
        belongings.tokenizer.save(str(directory / "tokenizer.json"))
        for name, content in _json_files(config, belongings, dtype).items():
            (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        for name, source in (belongings.extra_files or {}).items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(source.read_bytes())


def _keep(
    stream: Iterator[tuple[str, Tensor]], prefix: str, kept: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Pass the stream on, less FiLM's own layers, and note in `kept` what begins with `prefix`."""
    for name, tensor in stream:
        if name.startswith(prefix):
            kept[name] = tensor.clone()
        if not is_film_layer(name):
            yield name, tensor


def _write_shards(
    directory: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    stream: Iterator[tuple[str, Tensor]],
    shard_bytes: int,
) -> None:
    """Takes as many tensors from `stream` as `shapes` names, in that order."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in shapes.items():
        size = torch.Size(shape).numel() * dtype.itemsize
        if shards[-1] and filled + size > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = shape
        filled += size
    if len(shards) == 1:
        _write_shard(directory / SINGLE_FILE, shards[0], dtype, stream)
        return
    names = [
        f"model-{index:05d}-of-{len(shards):05d}.safetensors" for index in range(1, len(shards) + 1)
    ]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(directory / name, shard, dtype, stream)
    total = sum(torch.Size(shape).numel() for shape in shapes.values()) * dtype.itemsize
    weight_map = {
        tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard
    }
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_shard(
    file: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    stream: Iterator[tuple[str, Tensor]],
) -> None:
    kinds = {name: (shape, dtype) for name, shape in shapes.items()}
    write_safetensors(file, kinds, islice(stream, len(kinds)))


def _write_parts(
    directory: Path,
    family: Family,
    parts: Iterable[Part],
    tensors: Mapping[str, Tensor],
    step: int | str,
) -> None:
    for part in parts:
        prefix = f"{part.name}."
        state = {
            name.removeprefix(prefix): (
                tensor.float() if name.startswith(family.float32_modules) else tensor.clone()
            )
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        if part.in_module:
            state = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save(state, directory / part.saved_as.format(step=step))


def _json_files(config: PolicyConfig, belongings: Belongings, dtype: torch.dtype) -> dict[str, Any]:
    sizes = [vit.image_size for vit in config.vision]
    normalizations = (IMAGENET, SYMMETRIC)[: len(sizes)]
    specials = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<PAD>"}
    pad_id = config.text.pad_token_id
    first_added = pad_token_id(belongings.tokenizer)
    added = {
        token: index
        for token, index in belongings.tokenizer.get_vocab().items()
        if index >= first_added
    }
    model = config_json(config, str(dtype).removeprefix("torch."))
    if belongings.released:
        del model["decoding"]
        if config.vision == BACKBONES.get(config.vision_backbone_id):
            del model["vision_configs"]
    return {
        "config.json": model,
        "dataset_statistics.json": belongings.dataset_statistics,
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": pad_id},
        "added_tokens.json": dict(sorted(added.items(), key=lambda item: item[1])),
        "special_tokens_map.json": specials,
        "tokenizer_config.json": {
            **specials,
            "tokenizer_class": "LlamaTokenizer",
            "padding_side": "right",
            "model_max_length": 2048,
            "add_bos_token": True,
        },
        "preprocessor_config.json": {
            "image_processor_type": "PrismaticImageProcessor",
            "use_fused_vision_backbone": len(sizes) > 1,
            "image_resize_strategy": config.image_resize_strategy,
            "input_sizes": [[3, size, size] for size in sizes],
            "interpolations": ["bicubic"] * len(sizes),
            "means": [list(mean) for mean, _ in normalizations],
            "stds": [list(std) for _, std in normalizations],
            "tvf_resize_params": [
                {"size": [size, size], "interpolation": 3, "antialias": True} for size in sizes
            ],
            "tvf_crop_params": [{"output_size": [size, size]} for size in sizes],
            "tvf_normalize_params": [
                {"mean": list(mean), "std": list(std), "inplace": False}
                for mean, std in normalizations
            ],
            "tvf_do_letterbox": False,
            "tvf_letterbox_fill": None,
        },
    }
