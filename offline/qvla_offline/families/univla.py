"""UniVLA: four latent action tokens, and a small decoder that makes a chunk of actions of them.

Its checkpoints have an `action_decoder*.pt` and a tokenizer with latent action tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatch
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
from qvla_offline.checkpoints.layout import Layout, Part, part_shapes, require_shape
from qvla_offline.checkpoints.stored import COMPLETE
from qvla_offline.checkpoints.univla import LATENT_TOKENS, SAMPLING, UniVLA
from qvla_offline.export.options import NOISE_SEED, ExportOptions
from qvla_offline.export.univla import emit_univla
from qvla_offline.families.openvla import ACTION_TOKEN_GAIN
from qvla_ros.bundle import DecoderSpec, LatentSpec
from qvla_ros.decoding.univla import FIRST_LATENT
from qvla_ros.strict_json import parse

KIND = "univla"
HISTORY_TEMPLATE = (
    "In: What action should the robot take to {instruction}? History action {history}\nOut:"
)
NUM_LATENT_ACTIONS = 16  # tokens <ACT_0> to <ACT_15>
SMALL_POOL_WIDTH = 32
_PATTERN = "action_decoder*.pt"
ACTION_DECODER = Part(
    "action_decoder",
    pattern=_PATTERN,
    fits=lambda name: fnmatch(name, _PATTERN),
    saved_as="action_decoder.pt",
    in_module=False,
)


def _recognise(directory: Path, data: Mapping[str, Any]) -> str | None:
    if ACTION_DECODER.files(directory):
        return KIND
    if stated_decoding(data) or any(directory.glob("*_checkpoint.pt")):  # of OpenVLA-OFT
        return None
    tokenizer = directory / "tokenizer.json"
    has_latents = tokenizer.is_file() and f'"{FIRST_LATENT}"'.encode() in tokenizer.read_bytes()
    return KIND if has_latents else None


def _read_layout(directory: Path, data: Mapping[str, Any], kind: str) -> Layout:
    parts = {ACTION_DECODER.name: ACTION_DECODER.file(directory)}
    shapes = part_shapes(parts)
    (numbers,) = require_shape(directory, shapes, "action_decoder.proj.0.bias")
    pool = require_shape(directory, shapes, "action_decoder.latent_action_pool.latents")
    stated = stated_decoding(data)
    known, other = (
        ("chunk_length", "action_dim")
        if "chunk_length" in stated
        else ("action_dim", "chunk_length")
    )
    value = parse(
        int,
        stated.get(known, DecodingConfig.action_dim),
        f"config.json: decoding.{known}",
        COMPLETE,
    )
    implied = {
        "kind": kind,
        known: value,
        other: numbers // max(value, 1),  # the shape gives their product
        "pool_width": pool[-1],
        "num_images": 1,
        "proprio_dim": 0,
    }
    return Layout(directory, parse_config(data, implied), parts)


def _decoder(config: PolicyConfig, options: ExportOptions) -> DecoderSpec:
    latents = LatentSpec(
        num_tokens=LATENT_TOKENS,
        top_k=min(SAMPLING.top_k, config.text.vocab_size),
        seed=NOISE_SEED,
        ensemble_length=config.decoding.chunk_length if options.ensemble else 0,
        history_template=HISTORY_TEMPLATE if options.ensemble else None,
    )
    return DecoderSpec("univla", latents=latents, guessed=options.guessed)


def _prefer_latents(name: str, tensor: Tensor, config: PolicyConfig) -> None:
    """Makes a random policy mostly take latent action tokens."""
    if name.endswith("lm_head.weight"):
        first = config.text.pad_token_id + 1
        tensor[first : first + NUM_LATENT_ACTIONS] *= ACTION_TOKEN_GAIN


UNIVLA = Family(
    name="univla",
    title="UniVLA",
    kinds=(KIND,),
    recognise=_recognise,
    read_layout=_read_layout,
    network=UniVLA,
    emit=emit_univla,
    decoder=_decoder,
    export_options=("ensemble", "guessed"),
    parts=lambda decoding: (ACTION_DECODER,),
    float32_modules=("action_decoder.",),  # its evaluation runs it so, whatever the rest is in
    random=RandomPolicies(
        variants={"univla": DecodingConfig(KIND, chunk_length=12, proprio_dim=0, num_images=1)},
        extra_tokens=tuple(f"<ACT_{index}>" for index in range(NUM_LATENT_ACTIONS)),
        at_small_size=lambda decoding: replace(decoding, pool_width=SMALL_POOL_WIDTH),
        adjust=_prefer_latents,
    ),
)
