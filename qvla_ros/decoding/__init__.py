"""Decodes one observation's graph inputs into normalised actions.

A decoder decides how often the graph runs, and what an inference leaves to the next.

One file a kind of decoder. A new kind is one more file and one entry of KINDS; if it has settings
in the manifest, they are a field of qvla_ros.manifest.DecoderSpec.
"""

from __future__ import annotations

from typing import Any

from qvla_ros.decoding.action_tokens import ACTION_TOKENS
from qvla_ros.decoding.base import Decoded, Decoder, DecoderKind
from qvla_ros.decoding.diffusion import DIFFUSION
from qvla_ros.decoding.one_pass import L1_CHUNK
from qvla_ros.decoding.univla import UNIVLA
from qvla_ros.errors import QvlaError

# By the name in the manifest.
KINDS: dict[str, DecoderKind] = {
    kind.name: kind for kind in (L1_CHUNK, ACTION_TOKENS, DIFFUSION, UNIVLA)
}


def register_decoder_kind(kind: DecoderKind) -> None:
    """Adds a kind to those of this process; QvlaError if its name is taken."""
    if kind.name in KINDS:
        expected = f"none of {', '.join(KINDS)}, which are taken"
        fix = "register it under another name"
        raise QvlaError("decoder kind", repr(kind.name), expected, fix)
    KINDS[kind.name] = kind


def make_decoder(manifest: Decoded, tokenizer: Any) -> Decoder:
    """The decoder that the manifest asks for. tokenizer: the bundle's, a tokenizers.Tokenizer."""
    return KINDS[manifest.decoder.kind].make(manifest, tokenizer)
