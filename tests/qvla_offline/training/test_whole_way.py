"""Trained scales from the verb to a bundle: the numbers that were trained are those that run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qvla_offline.calibration import read_calibration
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.error.held_out import read_held_out
from qvla_offline.error.subjects import Subjects
from qvla_offline.fakequant import target_shapes
from qvla_offline.gates import read_gates, uniform, write_gates
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.quantization.trained_scales import read_trained_scales
from qvla_offline.training.lent_weights import LentWeights
from qvla_offline.training.run import WHOLE, Layers
from qvla_ros.cli.main import main
from tests.support.observations import error, write_observations

SCHEME = QuantizationScheme(16)
STEPS = ["--steps", 24, "--batch", 4, "--learning_rate", 0.01, "--bias_learning_rate", 0.01]
STEPS += ["--block_weight", 0, "--validation_share", 0.1]  # one of ten


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    write_random_checkpoint(folder / "tiny")
    write_observations(folder / "data", 10, seed=5)
    write_observations(folder / "held_out", 3, seed=1)
    rows = {name: r for name, (r, _) in target_shapes(folder / "tiny").items()}
    mixed = {name: np.resize([4, 2, 8, 0, 16], r) for name, r in rows.items()}
    gates = replace(uniform(rows, 4), layers=mixed, scheme=SCHEME.described())
    write_gates(folder / "gates.json", gates)
    assert train(folder, "scales.safetensors") == 0
    return folder


def verb(name: str, place: Path, *words: object) -> int:
    flat = [w for word in words for w in (word if isinstance(word, list) else [word])]
    paths = ["--pretrained_checkpoint", place / "tiny", "--gates_path", place / "gates.json"]
    return main([name, *map(str, [*paths, *flat])])


def train(place: Path, name: str, *more: object) -> int:
    data = ["--calib_jsonl", place / "data" / "set_5.jsonl", "--out_path", place / name]
    return verb("train_scales", place, data, STEPS, *more)


def trained(place: Path) -> list[object]:
    return ["--trained_scales", place / "scales.safetensors"]


def test_the_error_of_the_validation_samples_falls_and_is_that_of_the_stored_numbers(place):
    found = read_trained_scales(place / "scales.safetensors")
    errors = found.settings["validation_errors"][WHOLE]
    kept = str(found.settings["kept"][WHOLE])
    assert errors[kept] < errors["0"]
    checkpoint = load_checkpoint(place / "tiny")
    gates = read_gates(place / "gates.json")
    samples = read_calibration(place / "data" / "set_5.jsonl", checkpoint)
    making = Layers(gates, SCHEME)
    modules = making.executed(checkpoint.model)
    layers = {name: making.quantized(name, module) for name, module in modules.items()}
    again = LentWeights(checkpoint.model, layers, samples, block_weight=0.0)
    before = again.errors([9]).item()
    with torch.no_grad():
        for name, layer in layers.items():
            stored = found.put_into(name, layer.layer)
            layers[name].layer = stored
            if layer.correction is not None:
                layer.correction.copy_(stored.bias_correction)
        after = again.errors([9]).item()
    assert before == pytest.approx(errors["0"])
    assert after == pytest.approx(errors[kept])


def test_a_bundle_and_a_fake_quantized_checkpoint_give_the_same_actions(place, capsys):
    assert verb("export", place, trained(place), "--out_dir", place / "bundle") == 0
    float32 = ["--dtype", "float32", "--out_dir", place / "fake"]
    assert verb("fakequant", place, trained(place), float32) == 0
    subjects = Subjects(place / "tiny")
    samples = read_held_out(place / "held_out" / "set_1.jsonl", subjects.open()).samples
    bundle = subjects.of_bundle("bundle", place / "bundle").actions(samples)
    fake = subjects.of_fakequant("fake", place / "fake").actions(samples)
    path = place / "gates.json"
    lent = subjects.of_gates("gates", path, place / "scales.safetensors").actions(samples)
    untrained = subjects.of_gates("gates", path).actions(samples)
    np.testing.assert_allclose(fake, lent, atol=1e-5)
    np.testing.assert_allclose(bundle, lent, atol=1e-4)
    assert np.abs(lent - untrained).max() > 1e-3
    sources = read_gates(place / "bundle" / "gates.json").sources
    assert (
        sources["trained_scales_sha256"] == read_trained_scales(place / "scales.safetensors").sha256
    )


def test_the_same_command_writes_the_same_bytes(place):
    assert train(place, "again.safetensors") == 0
    assert (place / "again.safetensors").read_bytes() == (place / "scales.safetensors").read_bytes()


def test_layers_without_a_bias_get_none(place):
    found = read_trained_scales(place / "scales.safetensors")
    targets = quantization_targets(load_checkpoint(place / "tiny").model)
    for name, layer in found.layers.items():
        assert (layer.bias_correction is None) == (targets[name].bias is None), name


@pytest.mark.parametrize("name", ["export", "fakequant"])
def test_scales_of_another_scheme_are_refused_before_anything_is_written(place, name, capsys):
    out = ["--out_dir", place / f"refused_{name}", "--group_size", 32]
    assert verb(name, place, trained(place), out) == 2
    assert "other scheme" in " ".join(capsys.readouterr().err.split())
    assert not (place / f"refused_{name}").exists()


def test_the_error_of_gates_is_measured_with_the_scales_of_their_name(place, capsys):
    scales = place / "scales.safetensors"
    gates = ["--gates_path", f"plain={place}/gates.json", f"trained={place}/gates.json"]
    report = ["--out_json", place / "report.json"]
    assert error(place, *gates, "--trained_scales", f"trained={scales}", *report) == 0
    results = json.loads((place / "report.json").read_text())["results"]
    means = {r["name"]: r["measured_error"]["mean"] for r in results}
    assert means["plain"] != means["trained"]
    only = ["--gates_path", place / "gates.json", "--trained_scales", scales, *report]
    assert error(place, *only) == 0
    [alone] = json.loads((place / "report.json").read_text())["results"]
    assert alone["measured_error"]["mean"] == means["trained"]
    capsys.readouterr()
    for wrong in (scales, f"other={scales}"):
        assert error(place, *gates, "--trained_scales", wrong) == 2
        assert "one for each of the gates plain, trained" in " ".join(
            capsys.readouterr().err.split()
        )


def test_one_observation_is_too_few(place, capsys):
    assert train(place, "few.safetensors", "--max_samples", 1) == 2
    assert "2 or more" in " ".join(capsys.readouterr().err.split())


def test_rows_that_export_would_promote_are_refused(place, capsys):
    out = ["--out_dir", place / "promoted", "--tile", 8]
    assert verb("export", place, trained(place), out) == 2
    assert "8 with trained scales" in " ".join(capsys.readouterr().err.split())
    assert not (place / "promoted").exists()
