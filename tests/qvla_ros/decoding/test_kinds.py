"""A kind of decoder is one object: the manifest, the decoder and `qvla inspect` ask it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qvla_ros.bundle import DecoderSpec, DiffusionSpec, LatentSpec, TokenSpec, load_bundle
from qvla_ros.decoding import KINDS, make_decoder, register_decoder_kind
from qvla_ros.decoding.base import Decoded, Decoder, DecoderKind
from qvla_ros.errors import QvlaError


class Halved(Decoder):
    def run(self, engine, inputs):
        return 0.5 * super().run(engine, inputs)


def make_halved(manifest: Decoded, tokenizer: object) -> Decoder:
    return Halved(manifest.prompt)


HALVED = DecoderKind(
    "halved",
    make=make_halved,
    describe=lambda diffusion: f"half of {diffusion.num_steps}",
    settings="diffusion",
    one_action=lambda diffusion: diffusion.num_steps == 1,
)


class Ones:
    def run(self, inputs):
        return {"actions": np.ones((1, 4, 7))}


def test_a_registered_kind_is_read_checked_described_and_run(
    bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "halved", HALVED)
    bundle = replace(
        load_bundle(bundle_dir), decoder=DecoderSpec("halved", diffusion=DiffusionSpec(3, 0))
    )
    assert bundle.decoder.describe() == "half of 3"
    assert make_decoder(bundle, None).run(Ones(), {}).max() == 0.5
    with pytest.raises(QvlaError, match=r"decoder\.diffusion: got null.*an object with kind halv"):
        DecoderSpec("halved")
    with pytest.raises(QvlaError, match=r"decoder\.guessed"):
        replace(bundle.decoder, guessed=True)
    with pytest.raises(QvlaError, match=r"chunk_length: got 4; expected 1 with decoder halved"):
        replace(bundle, decoder=DecoderSpec("halved", diffusion=DiffusionSpec(1, 0)))


def test_a_name_is_taken_once() -> None:
    with pytest.raises(QvlaError, match="decoder kind: got .diffusion.; expected none of l1_chunk"):
        register_decoder_kind(KINDS["diffusion"])


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    expected = "one of 'l1_chunk', 'action_tokens', 'diffusion', 'univla'"
    with pytest.raises(QvlaError, match=rf"bundle\.json\.decoder\.kind: got 'halv.*{expected}"):
        DecoderSpec("halved")


def test_the_kinds_that_decode_tokens_are_unrolled_unless_they_are_guessed() -> None:
    unrolled = {name for name, kind in KINDS.items() if kind.decodes_tokens}
    assert unrolled == {"action_tokens", "univla"}
    for name in KINDS.keys() - unrolled - {"diffusion"}:
        assert not DecoderSpec(name).unrolled


def test_noise_is_drawn_by_diffusion_and_by_latent_tokens_with_a_seed() -> None:
    drawn = LatentSpec(4, 50, 7, ensemble_length=0, history_template=None)
    assert DecoderSpec("diffusion", diffusion=DiffusionSpec(3, 0)).draws_noise
    assert DecoderSpec("univla", latents=drawn).draws_noise
    assert not DecoderSpec("univla", latents=replace(drawn, seed=None)).draws_noise
    assert not DecoderSpec("action_tokens", tokens=TokenSpec(32000, 256)).draws_noise
    assert not DecoderSpec().draws_noise
