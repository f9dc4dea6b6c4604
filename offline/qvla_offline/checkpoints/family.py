"""Which family a checkpoint directory belongs to, told by the files in it, and where its parts lie.

OpenVLA has no files of its own; OpenVLA-OFT adds `<part>--<step>_checkpoint.pt`; UniVLA adds
`action_decoder*.pt`. Released checkpoints do not say how many actions make a chunk or how many
images they read: that follows from the robot that the sizes of their parts give away. What
config.json says of it, under `decoding` (see DecodingConfig), wins. OpenVLA-OFT without an action
head, which decodes its chunks as tokens in parallel, has no file of its own either; it is not
supported, and would be taken for OpenVLA.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from qvla_offline.checkpoints import lora
from qvla_offline.checkpoints.config import (
    DecodingConfig,
    PolicyConfig,
    parse_config,
    stated_decoding,
)
from qvla_offline.checkpoints.stored import COMPLETE, StoredTensor, component_tensors
from qvla_offline.checkpoints.tensor_source import (
    ADAPTER_FOLDER,
    TensorSource,
    config_file,
    open_tensors,
)
from qvla_ros.errors import QvlaError, QvlaWarning
from qvla_ros.strict_json import parse, read_json

DecoderKind = Literal["l1_chunk", "action_tokens", "diffusion", "univla"]
# (actions, proprioceptive numbers) of a robot -> the constants that openvla-oft has for it: LIBERO,
# ALOHA, BridgeData
ROBOTS: dict[tuple[int, int], dict[str, Any]] = {
    (7, 8): {"chunk_length": 8, "num_images": 2, "normalization": "q99"},
    (14, 14): {"chunk_length": 25, "num_images": 3, "normalization": "bounds"},
    (7, 7): {"chunk_length": 5, "num_images": 1, "normalization": "q99"},
}
REQUIRED_PARTS: dict[DecoderKind, tuple[str, ...]] = {
    "action_tokens": (),
    "l1_chunk": ("action_head",),
    "diffusion": ("action_head", "noisy_action_projector"),
    "univla": ("action_decoder",),
}
FILM_PART = "vision_backbone"
DIFFUSION_HEAD = "action_head.noise_predictor."  # what only the diffusion head has
FIRST_LATENT = "<ACT_0>"  # a token that only UniVLA's tokenizer has
_OF_A_ROBOT = ("chunk_length", "num_images", "normalization")  # what no shape tells
LARGEST_LORA_ALPHA = 16  # openvla-oft trains with alpha = min(rank, 16)


@dataclass(frozen=True)
class Layout:
    """config, and the `.pt` file of every part: {module: file}. film_file: of the ViTs that FiLM
    conditions, if any.
    """

    directory: Path
    config: PolicyConfig
    parts: dict[str, Path]
    film_file: Path | None

    def open_tensors(self) -> TensorSource:
        """All tensors by the names of our model."""
        if self.film_file is None:
            return open_tensors(self.directory, self.parts)
        tensors = open_tensors(
            self.directory, self.parts, without=f"{FILM_PART}."
        )  # the FiLM file has those
        adapter = self.directory / ADAPTER_FOLDER
        has_adapter = (adapter / lora.CONFIG).is_file()
        scaling = lora.read_adapter_config(adapter).scaling if has_adapter else None
        return TensorSource(tensors.stored | film_tensors(self.film_file, scaling))

    @property
    def step(self) -> int | None:
        """The training step in a part's file name; None for `latest`, and where there are no parts."""
        words = [file.name.partition("--")[2].partition("_")[0] for file in self.parts.values()]
        return next((int(word) for word in words if word.isdigit()), None)


def read_layout(directory: Path) -> Layout:
    """Recognise the family of a checkpoint directory. QvlaError names the part that is missing or
    there twice.
    """
    file = config_file(directory)
    data = read_json(file, COMPLETE)
    if not isinstance(data, dict):
        raise QvlaError(str(file), type(data).__name__, "a JSON object", COMPLETE)
    stated = stated_decoding(data)
    key = f"{file}: decoding.kind"
    kind = (
        parse(DecoderKind, stated["kind"], key, COMPLETE)
        if "kind" in stated
        else _kind(directory, stated)
    )
    parts = {part: _part_file(directory, part) for part in REQUIRED_PARTS[kind]}
    if "action_head" in parts and stated.get(
        "proprio_dim", bool(_files(directory, "proprio_projector"))
    ):
        parts["proprio_projector"] = _part_file(directory, "proprio_projector")
    film = stated.get("film", "action_head" in parts and bool(_files(directory, FILM_PART)))
    implied = {"kind": kind, "film": film, **_implied(directory, kind, parts, stated)}
    film_file = _part_file(directory, FILM_PART) if film else None
    return Layout(directory, parse_config(data, implied), parts, film_file)


def film_name(key: str) -> str:
    """What a key of openvla-oft's FiLM file is called without the FiLM wrapper around each block."""
    return key.replace(".block.", ".")


def film_tensors(file: Path, scaling: float | None = None) -> dict[str, StoredTensor]:
    """The ViTs in openvla-oft's FiLM file under our names, with their LoRA factors merged.

    There the ViTs are wrapped twice: each layer in its adapter, each block in FiLM. scaling: of the
    adapter; None takes alpha = min(rank, 16) over rank, which openvla-oft trains with. Merged
    weights are float32, since upstream runs the factors beside the weights: their sum is never
    rounded to the 16 bits of the file.
    """
    stored = {
        film_name(name.removeprefix(f"{FILM_PART}.")): tensor
        for name, tensor in component_tensors(file, FILM_PART).items()
    }
    rank = next((tensor.shape[0] for name, tensor in stored.items() if ".lora_A." in name), 1)
    return lora.merged(
        stored, min(rank, LARGEST_LORA_ALPHA) / rank if scaling is None else scaling, torch.float32
    )


def _kind(directory: Path, stated: Mapping[str, Any]) -> DecoderKind:
    if any(directory.glob("action_decoder*.pt")):
        return "univla"
    if _files(directory, "noisy_action_projector"):
        return "diffusion"
    if any(
        name.startswith(DIFFUSION_HEAD)
        for file in _files(directory, "action_head")
        for name in _names(file)
    ):
        return "diffusion"
    if stated or any(
        _files(directory, part) for part in ("action_head", "proprio_projector", FILM_PART)
    ):
        return "l1_chunk"
    tokenizer = directory / "tokenizer.json"
    if tokenizer.is_file() and f'"{FIRST_LATENT}"'.encode() in tokenizer.read_bytes():
        return "univla"
    return "action_tokens"


def _implied(
    directory: Path, kind: str, parts: Mapping[str, Path], stated: Mapping[str, Any]
) -> dict[str, Any]:
    """What the family, the shapes of its parts and the robot that these give away tell of
    DecodingConfig.
    """
    if kind == "action_tokens":
        return {"chunk_length": 1, "num_images": 1, "proprio_dim": 0}
    shapes = {
        name: t.shape
        for part, file in parts.items()
        for name, t in component_tensors(file, part).items()
    }
    if kind == "univla":
        (numbers,) = _shape(directory, shapes, "action_decoder.proj.0.bias")
        pool_width = _shape(directory, shapes, "action_decoder.latent_action_pool.latents")[-1]
        known, other = (
            ("chunk_length", "action_dim")
            if "chunk_length" in stated
            else ("action_dim", "chunk_length")
        )
        stated_value = stated.get(known, DecodingConfig.action_dim)
        value = parse(int, stated_value, f"config.json: decoding.{known}", COMPLETE)
        lengths = {known: value, other: numbers // max(value, 1)}  # the shape tells their product
        return {**lengths, "pool_width": pool_width, "num_images": 1, "proprio_dim": 0}
    head = "action_head.model" if kind == "l1_chunk" else "action_head.noise_predictor.mlp_resnet"
    action_dim = _shape(directory, shapes, f"{head}.fc2.bias")[0]
    proprio_dim = (
        _shape(directory, shapes, "proprio_projector.fc1.weight")[1]
        if "proprio_projector" in parts
        else 0
    )
    robot = ROBOTS.get((action_dim, proprio_dim), {})
    missing = [key for key in _OF_A_ROBOT if key not in stated and key not in robot]
    if missing:
        found = (
            f"no {', '.join(missing)}, for {action_dim} actions and {proprio_dim} "
            "proprioceptive numbers"
        )
        fix = (
            'add e.g. "decoding": {"chunk_length": 8, "num_images": 1, "normalization": '
            '"q99"} as it was trained'
        )
        if "proprio_projector" not in parts and any(actions == action_dim for actions, _ in ROBOTS):
            fix = (
                "if it reads proprioception, copy proprio_projector--*_checkpoint.pt "
                f"here; if not, {fix}"
            )
        raise QvlaError(f"{config_file(directory)}: decoding", found, ", ".join(_OF_A_ROBOT), fix)
    taken = {key: robot[key] for key in _OF_A_ROBOT if key not in stated}
    if taken:
        what = ", ".join(f"{key} {value}" for key, value in taken.items())
        text = (
            f"{what}: taken from openvla-oft's constants for {action_dim} actions and "
            f"{proprio_dim} numbers of state"
        )
        advice = f"if it was trained otherwise, say so under `decoding` in {config_file(directory)}"
        warnings.warn(f"{text}; {advice}", QvlaWarning, stacklevel=2)
    return {**robot, "action_dim": action_dim, "proprio_dim": proprio_dim}


def _shape(directory: Path, shapes: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    if name not in shapes:
        expected = "it, as the LIBERO policies of its family have it"
        raise QvlaError(
            f"{directory}: {name}",
            "no such tensor",
            expected,
            "use a checkpoint of a supported kind",
        )
    return shapes[name]


def _names(file: Path) -> Iterable[str]:
    """Of the tensors in a file of the action head; none if it cannot be read, which whoever reads
    it tells.
    """
    try:
        return component_tensors(file, "action_head")
    except QvlaError:
        return ()


def _files(directory: Path, part: str) -> list[Path]:
    """The files of a part; upstream's rule: the name holds the part's and "checkpoint", or begins
    with UniVLA's.
    """
    if part == "action_decoder":
        return sorted(directory.glob("action_decoder*.pt"))
    return sorted(
        file for file in directory.iterdir() if part in file.name and "checkpoint" in file.name
    )


def _part_file(directory: Path, part: str) -> Path:
    found = _files(directory, part)
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "no such file"
        pattern = "action_decoder*.pt" if part == "action_decoder" else f"{part}--*_checkpoint.pt"
        fix = "copy it here: the one of the training step that the weights are of"
        if found:
            fix = (
                "keep the one of the training step that the weights are of, and move "
                "the others away"
            )
        raise QvlaError(f"{directory}/{pattern}", names, f"exactly one {pattern}", fix)
    return found[0]
