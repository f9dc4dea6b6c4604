"""OpenVLA: one action an inference, as tokens that are decoded one after the other.

Its checkpoints have no files of their own, so every one that no other family recognises is taken
for it. OpenVLA-OFT without an action head, which decodes its chunks as tokens in parallel, has no
file of its own either; it is not supported, and would be taken for OpenVLA.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from qvla_offline.checkpoints.config import DecodingConfig, PolicyConfig, parse_config
from qvla_offline.checkpoints.family import Family, RandomPolicies
from qvla_offline.checkpoints.layout import Layout
from qvla_offline.checkpoints.openvla import OpenVLA
from qvla_offline.checkpoints.prompt import llama_prompt
from qvla_offline.checkpoints.tokenizer import PROMPT_TEMPLATE
from qvla_offline.export.openvla import emit_openvla
from qvla_offline.export.options import ExportOptions
from qvla_ros.bundle import DecoderSpec, PromptSpec, TokenSpec

KIND = "action_tokens"
PROMPT_TEMPLATE_V01 = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant "
    "gives helpful, detailed, and"
    " polite answers to the user's questions. USER: What action should the robot take to "
    "{instruction}? ASSISTANT:"
)
# Of the vocabulary head's rows, so that a random policy mostly takes action tokens.
ACTION_TOKEN_GAIN = 4.0
_NUM_ACTION_TOKENS = 256


def prefer_action_tokens(name: str, tensor: Tensor, config: PolicyConfig) -> None:
    """Makes a random policy mostly take action tokens."""
    if name.endswith("lm_head.weight"):
        first = config.action_vocabulary - _NUM_ACTION_TOKENS
        tensor[first : first + _NUM_ACTION_TOKENS] *= ACTION_TOKEN_GAIN


def _recognise(directory: Path, data: Mapping[str, Any]) -> str:
    return KIND


def _read_layout(directory: Path, data: Mapping[str, Any], kind: str) -> Layout:
    implied = {"kind": kind, "chunk_length": 1, "num_images": 1, "proprio_dim": 0}
    return Layout(directory, parse_config(data, implied))


def _prompt(directory: Path, data: Mapping[str, Any], tokenizer: Tokenizer) -> PromptSpec:
    """OpenVLA v0.1, the one on Vicuna, has another prompt.

    The released code knows it by the path, which may change.
    """
    named = any("openvla-v01" in str(path) for path in (directory, directory.resolve()))
    old = named or str(data.get("llm_backbone_id")).startswith("vicuna")
    template = PROMPT_TEMPLATE_V01 if old else PROMPT_TEMPLATE
    return llama_prompt(directory, tokenizer, template)


def _decoder(config: PolicyConfig, options: ExportOptions) -> DecoderSpec:
    tokens = TokenSpec(config.action_vocabulary, config.n_action_bins)
    return DecoderSpec("action_tokens", tokens=tokens, guessed=options.guessed)


OPENVLA = Family(
    name="openvla",
    title="OpenVLA",
    kinds=(KIND,),
    recognise=_recognise,
    read_layout=_read_layout,
    network=OpenVLA,
    emit=emit_openvla,
    decoder=_decoder,
    export_options=("guessed",),
    prompt=_prompt,
    action_dim_from_statistics=True,
    random=RandomPolicies(
        variants={"openvla": DecodingConfig(KIND, chunk_length=1, proprio_dim=0, num_images=1)},
        adjust=prefer_action_tokens,
    ),
)
