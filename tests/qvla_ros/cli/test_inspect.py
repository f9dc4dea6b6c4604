"""`qvla inspect` shows what a bundle holds, and shows nothing of one that is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qvla_ros.bundle import load_bundle
from qvla_ros.cli.main import main


def test_an_intact_bundle_is_described(bundle_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle_dir)]) == 0
    text = capsys.readouterr().out
    for expected in (
        load_bundle(bundle_dir).bundle_id,
        "agentview 32x32: rotate 180, Lanczos to 16, centre crop 0.9",
        "4 of delta_end_effector_pose, 50 ms apart, frame world",
        "0 to 1 opening_fraction",
        "16.00 bits a weight",
        "SHA-256 ok",
        "none built for this bundle",
    ):
        assert expected in text


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
