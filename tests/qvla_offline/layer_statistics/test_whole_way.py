"""A quantizer that compensates, from statistics to a bundle, by the verbs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.error.held_out import read_held_out
from qvla_offline.error.subjects import Subjects
from qvla_offline.gates import read_gates
from qvla_offline.quantization.quantizer import reconstruct_rows
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.quantization.stored_statistics import StoredStatistics
from qvla_offline.sensitivity.action import weight_errors
from qvla_offline.sensitivity.hessian import flat_weight
from qvla_offline.sensitivity.store import read_sensitivity
from qvla_ros.cli.main import main
from tests.support.observations import write_observations

SCHEME = QuantizationScheme(16, quantizer="guided_gptq")
COMPENSATING = ["--quantizer", "guided_gptq", "--group_size", "16"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole_way")
    write_random_checkpoint(folder / "tiny")
    write_observations(folder / "data", 4, seed=5)
    assert verb("statistics", folder, calibration(folder), "--out_dir", folder / "stat") == 0
    other = ["--out_dir", folder / "other", "--seed", 1]
    assert verb("statistics", folder, calibration(folder), other) == 0
    assert score(folder, "scores", "--statistics", folder / "stat") == 0
    assert choose(folder, "gates.json", "--target_avg_bits", 6) == 0
    return folder


def verb(name: str, place: Path, *words: object) -> int:
    flat = [w for word in words for w in (word if isinstance(word, list) else [word])]
    return main([name, "--pretrained_checkpoint", str(place / "tiny"), *map(str, flat)])


def calibration(place: Path) -> list[object]:
    return ["--calib_jsonl", place / "data" / "set_5.jsonl"]


def score(place: Path, name: str, *more: object) -> int:
    out = ["--out_path", place / f"{name}.safetensors", "--probes", 1, "--bits", "2,4,8"]
    return verb("sensitivity", place, calibration(place), out, COMPENSATING, *more)


def choose(place: Path, name: str, *more: object) -> int:
    paths = ["--proxy_pt", place / "scores.safetensors", "--out_json", place / name]
    paths += ["--measured_samples", 0, "--cost", "nominal"]
    return verb("gates", place, calibration(place), paths, *more)


def test_scores_are_those_of_the_compensated_errors(place):
    targets = quantization_targets(load_checkpoint(place / "tiny").model)
    stored = StoredStatistics(place / "stat")
    name = next(name for name in stored if name.endswith("mlp.fc1"))
    errors = weight_errors(targets[name], (0, 4), SCHEME, f"{name}.weight", stored[name])
    weight = flat_weight(targets[name])
    compensated = reconstruct_rows(weight, 4, SCHEME, name, stored[name]) - weight
    assert torch.equal(errors[:, 0], compensated)
    found = read_sensitivity(place / "scores.safetensors")
    assert found.sources["statistics_sha256"] == stored.sha256
    assert found.settings["scheme"]["quantizer"] == "guided_gptq"
    plain = ["--quantizer", "clip_search", "--group_size", 16]
    assert score(place, "plain", plain) == 0
    other = read_sensitivity(place / "plain.safetensors")
    assert "statistics_sha256" not in other.sources
    at_four = found.bits.index(4)
    assert found.scores[name][at_four].sum() < other.scores[name][at_four].sum()


def test_with_statistics_the_quantizer_compensates_unless_another_is_named(place):
    out = ["--out_path", place / "named.safetensors", "--probes", 1, "--max_samples", 1]
    given = ["--statistics", place / "stat", "--group_size", 16]
    for named, quantizer in (([], "guided_gptq"), (["--quantizer", "gptq"], "gptq")):
        assert verb("sensitivity", place, calibration(place), out, given, named) == 0
        settings = read_sensitivity(place / "named.safetensors").settings
        assert settings["scheme"]["quantizer"] == quantizer


def test_channels_are_checked_and_refined_with_their_compensated_errors(place, capsys):
    assert score(place, "checked", "--statistics", place / "stat", "--check", 6, "--refine", 2) == 0
    assert "rank correlation" in capsys.readouterr().out


def test_without_statistics_it_is_refused_and_the_fix_works(place, capsys):
    before = {"sensitivity": lambda *more: score(place, "fixed", *more)}
    before["gates"] = lambda *more: choose(place, "fixed.json", "--joint_rounds", 1, *more)
    gates = ["--gates_path", place / "gates.json"]
    before["export"] = lambda *more: verb(
        "export", place, gates, "--out_dir", place / "fixed_bundle", *more
    )
    before["fakequant"] = lambda *more: verb(
        "fakequant", place, gates, "--out_dir", place / "fixed_fake", *more
    )
    for name, run in before.items():
        assert run() == 2, name
        message = capsys.readouterr().err
        assert "no gradient_weighted_hessian" in message, name
        [words] = re.findall(r"`qvla (statistics --out_dir DIR)`", " ".join(message.split()))
        made = [word.replace("DIR", str(place / "made")) for word in shlex.split(words)]
        assert verb(made[0], place, calibration(place), made[1:]) == 0
        assert "--statistics DIR" in " ".join(message.split())
        assert run("--statistics", place / "made") == 0, name
        capsys.readouterr()


def test_joint_rounds_measure_with_the_statistics_of_the_scores_alone(place, capsys):
    rounds = ["--joint_rounds", 1, "--target_avg_bits", 6]
    assert choose(place, "joint.json", rounds, "--statistics", place / "stat") == 0
    assert read_gates(place / "joint.json").budget["measured_error"] > 0
    capsys.readouterr()
    assert choose(place, "wrong.json", rounds, "--statistics", place / "other") == 2
    assert "was scored with" in " ".join(capsys.readouterr().err.split())
    assert not (place / "wrong.json").exists()


def test_statistics_of_another_checkpoint_are_refused(place, tmp_path, capsys):
    write_random_checkpoint(tmp_path / "tiny", seed=1)
    words = ["--gates_path", place / "gates.json", "--statistics", place / "stat"]
    assert verb("fakequant", tmp_path, words, "--out_dir", tmp_path / "out") == 2
    assert "made from a checkpoint" in " ".join(capsys.readouterr().err.split())


def test_a_bundle_and_a_fake_quantized_checkpoint_give_the_same_actions(place):
    asked = ["--gates_path", place / "gates.json", "--statistics", place / "stat"]
    assert verb("export", place, asked, "--out_dir", place / "bundle") == 0
    final = ["--gates_path", place / "bundle" / "gates.json", "--statistics", place / "stat"]
    float32 = ["--dtype", "float32"]
    assert verb("fakequant", place, final, float32, "--out_dir", place / "fake") == 0
    exported = read_gates(place / "bundle" / "gates.json")
    assert exported.scheme["quantizer"] == "guided_gptq"
    assert exported.sources["statistics_sha256"] == StoredStatistics(place / "stat").sha256
    subjects = Subjects(place / "tiny")
    held_out = read_held_out(place / "data" / "set_5.jsonl", subjects.open())
    bundle = subjects.of_bundle("bundle", place / "bundle").actions(held_out.samples)
    fake = subjects.of_fakequant("fake", place / "fake").actions(held_out.samples)
    exact = subjects.float_actions(held_out.samples)
    np.testing.assert_allclose(bundle, fake, atol=1e-4)
    assert np.abs(fake - exact).max() > 1e-3


@pytest.mark.parametrize("quantizer", ["awq", "smoothquant"])
def test_quantizers_that_scale_inputs_are_restored_but_neither_scored_nor_exported(
    place, quantizer, capsys
):
    named = ["--quantizer", quantizer, "--statistics", place / "stat"]
    gates = ["--gates_path", place / "gates.json"]
    assert verb("fakequant", place, gates, named, "--out_dir", place / f"{quantizer}_fake") == 0
    capsys.readouterr()
    assert score(place, quantizer, named) == 2
    assert "treats each row alone" in capsys.readouterr().err
    assert verb("export", place, gates, named, "--out_dir", place / quantizer) == 2
    assert "inputs as they are" in capsys.readouterr().err
    assert not (place / quantizer).exists()
