"""Random checkpoints: they look like released ones, at any size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qvla_offline.checkpoints.empty import empty_model
from qvla_offline.checkpoints.random_checkpoint import (
    full_config,
    variants,
    write_random_checkpoint,
)


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: write_random_checkpoint(root / family, family, seed=4) for family in variants()}


def test_config_json_of_random_checkpoints_says_no_more_than_a_released_one(
    directories: dict[str, Path],
) -> None:
    for path in directories.values():
        assert "decoding" not in json.loads((path / "config.json").read_text())


def test_full_size_is_that_of_the_released_policies() -> None:
    sizes = {}
    for family, decoding in variants().items():
        model = empty_model(full_config(decoding))
        sizes[family] = sum(tensor.numel() for tensor in model.state_dict().values())
    assert sizes["openvla"] == 7_541_237_184
    assert sizes["openvla_oft"] > sizes["openvla"]
    assert (
        empty_model(full_config(variants()["openvla"], num_layers=2)).config.text.num_hidden_layers
        == 2
    )
