"""Read and write checkpoint directories in the layout that OpenVLA-OFT publishes.

config.json, model*.safetensors (one file or shards with an index), tokenizer.json, preprocessor_config.json,
dataset_statistics.json, and per component `<name>--<step>_checkpoint.pt`: a plain state dict whose keys begin with
`module.`, as DistributedDataParallel saves them. Nothing is unpickled but tensors, and no code of a checkpoint is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from qvla_offline.checkpoints.config import PolicyConfig, config_json, parse_config
from qvla_offline.checkpoints.empty import empty_model
from qvla_offline.checkpoints.model import OpenVLAOFT
from qvla_offline.checkpoints.statistics import choose_statistics
from qvla_offline.checkpoints.stored import COMPLETE
from qvla_offline.checkpoints.tensor_source import TensorSource, open_tensors
from safetensors.torch import save
from tokenizers import Tokenizer

from qvla_ros.atomic import atomic_directory
from qvla_ros.bundle import PromptSpec
from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import parse, read_json

FAMILY = "openvla-oft"
COMPONENTS = ("action_head", "proprio_projector")
PROMPT_TEMPLATE = "In: What action should the robot take to {instruction}?\nOut:"
# ImageNet's and SigLIP's statistics, rounded to bfloat16 as OpenVLA's converter left them in preprocessor_config.json.
IMAGENET = ((0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375))
SYMMETRIC = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

_Triple = tuple[float, float, float]
Normalization = tuple[_Triple, _Triple]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded policy and all that is needed to feed it.

    statistics: {"action": {...}, "proprio": {...}} of `unnorm_key`; normalizations: (mean, std) per vision backbone,
    in the order of the channels of `pixel_values`; model: in eval mode, float32 unless asked otherwise, on the meta
    device if opened lazily; tensors: its weights as they are stored.
    """

    path: Path
    family: str
    config: PolicyConfig
    model: OpenVLAOFT
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
    """Load an OpenVLA-OFT directory (L1 head). `unnorm_key` may be omitted when it holds one dataset's statistics.

    lazily: check everything, but leave the model without weights (on the meta device); they are in `tensors`.

    Raises QvlaError naming the file or key for anything missing, corrupt, of another shape or ambiguous.
    """
    check_device(device)
    directory = Path(path)
    if not directory.is_dir():
        raise QvlaError("checkpoint", directory, "a directory in the OpenVLA-OFT layout", "check the path")
    config = parse_config(_read_object(directory / "config.json"))
    statistics_file = directory / "dataset_statistics.json"
    key, statistics = choose_statistics(statistics_file, unnorm_key, config.decoding, COMPLETE)
    normalizations = _normalizations(directory, len(config.vision))
    tokenizer = _load_tokenizer(directory / "tokenizer.json")

    components = {name: _component_file(directory, name) for name in COMPONENTS}
    tensors = open_tensors(directory, components)
    model = empty_model(config)
    tensors.check_against(model, directory)
    if not lazily:
        model.load_state_dict({name: t.to(device=device, dtype=dtype) for name, t in tensors.items()}, assign=True)
    return Checkpoint(
        path=directory,
        family=FAMILY,
        config=config,
        model=model.eval().requires_grad_(False),
        tensors=tensors,
        tokenizer=tokenizer,
        prompt=PromptSpec(PROMPT_TEMPLATE, lowercase=True, append_token_id=tokenizer.token_to_id("▁")),
        statistics=statistics,
        unnorm_key=key,
        normalizations=normalizations,
        step=_step(components["action_head"]),
    )


def check_device(device: str) -> None:
    """QvlaError unless torch can compute on `device`, which it would else say with a traceback after loading."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        said = str(error).partition("\n")[0]
        expected = "cpu, or cuda where torch finds a GPU"
        raise QvlaError("device", f"{device} ({said})", expected, "use --device cpu") from None


def empty_policy(path: str | Path) -> OpenVLAOFT:
    """The policy of a checkpoint directory without its weights (all on the meta device), from config.json alone."""
    return empty_model(parse_config(_read_object(Path(path) / "config.json")))


def save_checkpoint(
    path: str | Path,
    model: OpenVLAOFT,
    tokenizer: Tokenizer,
    dataset_statistics: Mapping[str, Any],
    step: int | str,
    normalizations: tuple[Normalization, ...] = (IMAGENET, SYMMETRIC),
    dtype: torch.dtype = torch.float16,
    extra_files: Mapping[str, Path] | None = None,
) -> None:
    """Write a whole checkpoint directory, or nothing. dataset_statistics: {dataset key: {"action": ..., ...}}."""
    config = model.config
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    with atomic_directory(path, "config.json") as directory:
        main = {name: tensor for name, tensor in state.items() if not name.startswith(COMPONENTS)}
        (directory / "model.safetensors").write_bytes(save(main, metadata={"format": "pt"}))
        for component in COMPONENTS:
            prefix = f"{component}."
            part = {
                f"module.{name.removeprefix(prefix)}": tensor.clone()
                for name, tensor in state.items()
                if name.startswith(prefix)
            }
            torch.save(part, directory / f"{component}--{step}_checkpoint.pt")
        tokenizer.save(str(directory / "tokenizer.json"))
        for name, content in _json_files(config, normalizations[: len(config.vision)]).items():
            _write_json(directory / name, content)
        _write_json(directory / "dataset_statistics.json", dataset_statistics)
        for name, source in (extra_files or {}).items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(source.read_bytes())


def _json_files(config: PolicyConfig, normalizations: tuple[Normalization, ...]) -> dict[str, Any]:
    sizes = [vit.image_size for vit in config.vision]
    specials = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<PAD>"}
    pad_id = config.text.pad_token_id
    return {
        "config.json": config_json(config),
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": pad_id},
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
            "tvf_resize_params": [{"size": [size, size], "interpolation": 3, "antialias": True} for size in sizes],
            "tvf_crop_params": [{"output_size": [size, size]} for size in sizes],
            "tvf_normalize_params": [
                {"mean": list(mean), "std": list(std), "inplace": False} for mean, std in normalizations
            ],
            "tvf_do_letterbox": False,
            "tvf_letterbox_fill": None,
        },
    }


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _load_tokenizer(file: Path) -> Tokenizer:
    if not file.is_file():
        raise QvlaError(str(file), "no such file", "the tokenizer of the checkpoint", COMPLETE)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception for anything it cannot parse
        raise QvlaError(str(file), error, "a tokenizers JSON file", COMPLETE) from error
    if tokenizer.token_to_id("▁") is None:
        raise QvlaError(str(file), "no token '▁'", "a Llama tokenizer, whose lone '▁' ends the prompt", COMPLETE)
    return tokenizer


def _component_file(directory: Path, component: str) -> Path:
    """The one file named after the component; upstream's rule: its name holds the component and "checkpoint"."""
    found = sorted(file for file in directory.iterdir() if component in file.name and "checkpoint" in file.name)
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "no such file"
        expected = f"exactly one {component}--<step>_checkpoint.pt"
        raise QvlaError(f"{directory}/{component}--*_checkpoint.pt", names, expected, COMPLETE)
    return found[0]


def _normalizations(directory: Path, num_backbones: int) -> tuple[Normalization, ...]:
    """(mean, std) per backbone; the stored `tvf_normalize_params` win over `means` and `stds`, as upstream."""
    file = directory / "preprocessor_config.json"
    data = _read_object(file)
    if "tvf_normalize_params" in data:
        key, entries = f"{file}: tvf_normalize_params", data["tvf_normalize_params"]
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise QvlaError(key, type(entries).__name__, "a list of objects with mean and std", COMPLETE)
        pairs = [[entry.get("mean"), entry.get("std")] for entry in entries]
    else:
        key = f"{file}: means and stds"
        lists = [parse(tuple[_Triple, ...], data.get(name), f"{file}: {name}", COMPLETE) for name in ("means", "stds")]
        pairs = [list(pair) for pair in zip_longest(*lists)]
    if len(pairs) != num_backbones:
        expected = f"{num_backbones} entries, one per vision backbone"
        raise QvlaError(key, f"{len(pairs)} entries", expected, COMPLETE)
    return parse(tuple[Normalization, ...], pairs, key, COMPLETE)


def _read_object(file: Path) -> dict[str, Any]:
    content = read_json(file, COMPLETE)
    if not isinstance(content, dict):
        raise QvlaError(str(file), type(content).__name__, "a JSON object", COMPLETE)
    return content


def _step(file: Path) -> int | None:
    """The training step in a component's file name, or None for `latest`."""
    text = file.name.partition("--")[2].partition("_")[0]
    return int(text) if text.isdigit() else None
