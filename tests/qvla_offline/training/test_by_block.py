"""Training block by block: each block comes nearer to its own float output."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.error.subjects import Subjects
from qvla_offline.fakequant import target_shapes
from qvla_offline.gates import uniform, write_gates
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.quantization.trained_scales import read_trained_scales
from qvla_ros.cli.main import main
from tests.support.observations import write_observations

SCHEME = QuantizationScheme(16)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("by_block")
    write_random_checkpoint(folder / "tiny")
    write_observations(folder / "data", 6, seed=5)
    rows = {name: r for name, (r, _) in target_shapes(folder / "tiny").items()}
    mixed = {name: np.resize([2, 4], r) for name, r in rows.items()}
    gates = replace(uniform(rows, 4), layers=mixed, scheme=SCHEME.described())
    write_gates(folder / "gates.json", gates)
    assert train(folder, "blocks.safetensors", "--memory_gb", "4") == 0
    return folder


def train(place, name: str, *more: str) -> int:
    paths = ["--pretrained_checkpoint", place / "tiny", "--gates_path", place / "gates.json"]
    data = ["--calib_jsonl", place / "data" / "set_5.jsonl", "--out_path", place / name]
    how = ["--by_block", "--steps", 8, "--batch", 4, "--learning_rate", 0.01]
    return main(["train_scales", *map(str, [*paths, *data, *how]), *more])


def test_every_block_with_scales_comes_nearer_to_its_float_output(place):
    found = read_trained_scales(place / "blocks.safetensors")
    errors = found.settings["validation_errors"]
    kept = found.settings["kept"]
    assert len(errors) > 3
    lower = [of[str(kept[name])] < of["0"] for name, of in errors.items()]
    assert np.mean(lower) > 0.7
    assert all(of[str(kept[name])] == min(of.values()) for name, of in errors.items())


def test_memory_that_holds_nothing_between_blocks_changes_no_number(place):
    assert train(place, "small.safetensors", "--memory_gb", "0.0001") == 0
    large = read_trained_scales(place / "blocks.safetensors").layers
    small = read_trained_scales(place / "small.safetensors").layers
    assert large.keys() == small.keys()
    for name, layer in large.items():
        for bits, scales in layer.scales.items():
            assert torch.equal(scales, small[name].scales[bits])


def test_the_policy_runs_with_what_was_trained_by_block(place):
    subjects = Subjects(place / "tiny")
    path = place / "gates.json"
    subject = subjects.of_gates("trained", path, place / "blocks.safetensors")
    assert subject.trained.layers.keys() >= {"language_model.model.layers.0.mlp.up_proj"}
