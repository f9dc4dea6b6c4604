"""OpenVLA-OFT: a chunk of actions in one parallel pass, with the L1 or the diffusion head.

Its parts are in `<part>--<step>_checkpoint.pt`. Released checkpoints do not say how many actions
make a chunk or how many images they read: that follows from the robot that the shapes of their
parts give away. An entry of `decoding` in config.json (see DecodingConfig) wins. With FiLM the
prompt modulates the ViTs, which then have a file of their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from qvla_offline.checkpoints.config import (
    DecodingConfig,
    PolicyConfig,
    parse_config,
    stated_decoding,
)
from qvla_offline.checkpoints.family import Family, RandomPolicies
from qvla_offline.checkpoints.film import FILM_PART
from qvla_offline.checkpoints.layout import Layout, Part, part_names, part_shapes, require_shape
from qvla_offline.checkpoints.openvla_oft import OpenVLAOFT
from qvla_offline.checkpoints.tensor_source import config_file
from qvla_offline.export.openvla_oft import emit_oft
from qvla_offline.export.options import NOISE_SEED, ExportOptions
from qvla_offline.families.openvla import prefer_action_tokens
from qvla_ros.bundle import DecoderSpec, DiffusionSpec
from qvla_ros.errors import QvlaError, QvlaWarning

L1 = "l1_chunk"
DIFFUSION = "diffusion"
# (actions, proprioceptive numbers) of a robot -> the constants that openvla-oft has for it: LIBERO,
# ALOHA, BridgeData
ROBOTS: dict[tuple[int, int], dict[str, Any]] = {
    (7, 8): {"chunk_length": 8, "num_images": 2, "normalization": "q99"},
    (14, 14): {"chunk_length": 25, "num_images": 3, "normalization": "bounds"},
    (7, 7): {"chunk_length": 5, "num_images": 1, "normalization": "q99"},
}
_OF_A_ROBOT = ("chunk_length", "num_images", "normalization")  # what no shape gives
_MLP = {L1: "action_head.model", DIFFUSION: "action_head.noise_predictor.mlp_resnet"}
_DIFFUSION_HEAD = "action_head.noise_predictor."  # what only the diffusion head has
HEAD_GAIN = 0.3  # of a random head's last layer, to keep most actions within [-1, 1]


def _part(name: str) -> Part:
    return Part(
        name,
        pattern=f"{name}--*_checkpoint.pt",
        fits=lambda file: name in file and "checkpoint" in file,  # upstream's rule
        saved_as=f"{name}--{{step}}_checkpoint.pt",
    )


ACTION_HEAD = _part("action_head")
NOISY_ACTIONS = _part("noisy_action_projector")
PROPRIOCEPTION = _part("proprio_projector")
FILM = _part(FILM_PART)


def _parts(decoding: DecodingConfig) -> tuple[Part, ...]:
    diffusion = (NOISY_ACTIONS,) if decoding.kind == DIFFUSION else ()
    proprioception = (PROPRIOCEPTION,) if decoding.proprio_dim else ()
    return (ACTION_HEAD, *diffusion, *proprioception)


def _recognise(directory: Path, data: Mapping[str, Any]) -> str | None:
    if NOISY_ACTIONS.files(directory):
        return DIFFUSION
    for file in ACTION_HEAD.files(directory):
        if any(name.startswith(_DIFFUSION_HEAD) for name in part_names(file, ACTION_HEAD.name)):
            return DIFFUSION
    parts = (ACTION_HEAD, PROPRIOCEPTION, FILM)
    own = stated_decoding(data) or any(part.files(directory) for part in parts)
    return L1 if own else None


def _read_layout(directory: Path, data: Mapping[str, Any], kind: str) -> Layout:
    stated = stated_decoding(data)
    needed = [ACTION_HEAD, NOISY_ACTIONS] if kind == DIFFUSION else [ACTION_HEAD]
    parts = {part.name: part.file(directory) for part in needed}
    if stated.get("proprio_dim", bool(PROPRIOCEPTION.files(directory))):
        parts[PROPRIOCEPTION.name] = PROPRIOCEPTION.file(directory)
    film = stated.get("film", bool(FILM.files(directory)))
    shapes = part_shapes(parts)
    action_dim = require_shape(directory, shapes, f"{_MLP[kind]}.fc2.bias")[0]
    proprio_dim = 0
    if PROPRIOCEPTION.name in parts:
        proprio_dim = require_shape(directory, shapes, "proprio_projector.fc1.weight")[1]
    implied = {
        "kind": kind,
        "film": film,
        **_robot(directory, stated, action_dim, proprio_dim),
        "action_dim": action_dim,
        "proprio_dim": proprio_dim,
    }
    config = parse_config(data, implied)
    return Layout(directory, config, parts, FILM.file(directory) if film else None)


def _robot(
    directory: Path, stated: Mapping[str, Any], action_dim: int, proprio_dim: int
) -> dict[str, Any]:
    """What openvla-oft has as constants for the robot of these sizes.

    QvlaError where neither it nor config.json has them; QvlaWarning where they are used.
    """
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
        if not proprio_dim and any(actions == action_dim for actions, _ in ROBOTS):
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
        warnings.warn(f"{text}; {advice}", QvlaWarning, stacklevel=3)
    return robot


def _decoder(config: PolicyConfig, options: ExportOptions) -> DecoderSpec:
    if config.decoding.kind == DIFFUSION:
        diffusion = DiffusionSpec(config.decoding.diffusion_steps, NOISE_SEED)
        return DecoderSpec("diffusion", diffusion=diffusion)
    return DecoderSpec("l1_chunk")


def _adjust(name: str, tensor: Tensor, config: PolicyConfig) -> None:
    if name.startswith("action_head") and name.endswith("fc2.weight"):
        tensor *= HEAD_GAIN
    prefer_action_tokens(name, tensor, config)


OPENVLA_OFT = Family(
    name="openvla-oft",
    title="OpenVLA-OFT",
    kinds=(L1, DIFFUSION),
    recognise=_recognise,
    read_layout=_read_layout,
    network=OpenVLAOFT,
    emit=emit_oft,
    decoder=_decoder,
    parts=_parts,
    random=RandomPolicies(
        variants={
            "openvla_oft": DecodingConfig(),
            "openvla_oft_diffusion": DecodingConfig(DIFFUSION),
            "openvla_oft_film": DecodingConfig(film=True),
        },
        adjust=_adjust,
    ),
)
