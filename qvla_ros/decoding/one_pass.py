"""OpenVLA-OFT's L1 head, and every policy whose graph gives its actions in one run."""

from __future__ import annotations

from qvla_ros.decoding.base import Decoder, DecoderKind

L1_CHUNK = DecoderKind(
    "l1_chunk",
    make=lambda manifest, tokenizer: Decoder(manifest.prompt),
    describe=lambda settings: "one pass",
)
