"""`qvla inspect` shows what a bundle holds, and shows nothing of one that is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qvla_ros.bundle import DecoderSpec, DiffusionSpec, LatentSpec, TokenSpec, load_bundle
from qvla_ros.cli.inspect import describe
from qvla_ros.cli.main import main


def test_an_intact_bundle_is_described(
    bundle_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(bundle_dir)]) == 0
    text = capsys.readouterr().out
    for expected in (
        load_bundle(bundle_dir).bundle_id,
        "agentview 32x32: rotate 180, Lanczos to 16, centre crop 0.9, 1 backbone(s)",
        "4 of delta_end_effector_pose, 50 ms apart, frame world",
        "0 to 1 opening_fraction",
        "16.00 bits a weight",
        "SHA-256 ok",
        "none built for this bundle",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("decoder", "words"),
    [
        (DecoderSpec(), "one pass"),
        (
            DecoderSpec("action_tokens", tokens=TokenSpec(32000, 256), guessed=True),
            "256 bins, guessed and confirmed",
        ),
        (DecoderSpec("diffusion", diffusion=DiffusionSpec(50, 7)), "50 steps, seed 7"),
        (
            DecoderSpec("univla", latents=LatentSpec(4, 50, None, 12, None)),
            "the likeliest, 12 inferences averaged",
        ),
    ],
)
def test_the_way_of_decoding_is_shown(bundle_dir: Path, decoder: DecoderSpec, words: str) -> None:
    bundle = load_bundle(bundle_dir)
    bundle = replace(bundle, decoder=decoder, actions=replace(bundle.actions, chunk_length=1))
    assert dict(describe(bundle))["decoder"].endswith(words)


def test_json_is_json(bundle_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["actions"]["chunk_length"] == 4


def test_a_damaged_bundle_exits_with_2_and_names_the_file(
    make_bundle: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_bundle(tmp_path / "bundle")
    (directory / "tokenizer.json").write_text("{}")
    assert main(["inspect", str(directory)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "tokenizer.json" in captured.err
    assert "copy the bundle again" in captured.err


def test_every_resize_of_the_image_chain_is_shown(bundle_dir: Path) -> None:
    bundle = load_bundle(bundle_dir)
    camera = replace(bundle.cameras[0], bicubic_size=256, jpeg_quality=95, resize_size=224)
    shown = " ".join(value for _, value in describe(replace(bundle, cameras=(camera,))))
    assert "bicubic to 256, JPEG 95, Lanczos to 224, centre crop 0.9, bicubic to 16" in shown
