"""A recipe whose quantizer compensates gathers the statistics itself, and only when it must."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.gates import read_gates
from qvla_offline.quantization.stored_statistics import StoredStatistics
from qvla_offline.recipe import run_recipe
from qvla_offline.sensitivity.store import read_sensitivity
from qvla_ros.bundle import sha256_of
from qvla_ros.errors import QvlaError
from tests.support import tiny_recipe
from tests.support.observations import write_observations

STEPS = ("statistics", "sensitivity", "gates", "bundle", "fakequant", "error")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compensated")
    write_random_checkpoint(folder / "tiny")
    write_observations(folder / "data", 4, seed=5)
    return folder


def write_recipe(place: Path, **changes: object) -> Path:
    own = {
        "checkpoint": "tiny",
        "calibration": "data/set_5.jsonl",
        "statistics": {"max_samples": 3, "probes": 1},
        "sensitivity": {"probes": 1, "max_samples": 2, "bits": [2, 4, 8]},
        "gates": {"target_avg_bits": 8.0, "bits": [2, 4, 8, 16], "joint_rounds": 1},
        "scheme": {"group_size": 16, "quantizer": "guided_gptq"},
    }
    return tiny_recipe.write_recipe(place, "recipe.yaml", **(own | changes))


def test_statistics_are_gathered_before_the_scores_and_nothing_is_made_twice(place, capsys):
    out = run_recipe(write_recipe(place))
    printed = capsys.readouterr().out
    places = [printed.index(f"{step}: {out / step}") for step in STEPS]
    assert places == sorted(places)
    made = StoredStatistics(out / "statistics")
    settings = json.loads((out / "statistics" / "statistics.json").read_text())["settings"]
    assert settings == {"max_samples": 3, "probes": 1, "seed": 0, "unnorm_key": None}
    sensitivity = read_sensitivity(out / "sensitivity.safetensors")
    assert sensitivity.sources["statistics_sha256"] == made.sha256
    assert read_gates(out / "bundle" / "gates.json").scheme["quantizer"] == "guided_gptq"
    run_recipe(write_recipe(place))
    again = capsys.readouterr().out
    assert all(f"{step}: up to date" in again for step in STEPS)
    assert again.count("up to date") == len(STEPS)


def test_other_statistics_make_all_that_follows_again(place, capsys):
    run_recipe(write_recipe(place))
    capsys.readouterr()
    run_recipe(write_recipe(place, statistics={"max_samples": 3, "probes": 1, "seed": 1}))
    assert "up to date" not in capsys.readouterr().out


def test_without_the_section_statistics_are_gathered_as_the_scores_are(place):
    out = run_recipe(write_recipe(place, statistics=None), place / "as_scores")
    settings = json.loads((out / "statistics" / "statistics.json").read_text())["settings"]
    assert settings == {"max_samples": 2, "probes": 1, "seed": 0, "unnorm_key": None}


def test_a_section_that_the_quantizer_does_not_read_is_refused(place):
    path = write_recipe(place, scheme={"group_size": 16, "quantizer": "clip_search"})
    with pytest.raises(QvlaError, match="quantizer clip_search"):
        run_recipe(path, place / "none")
    assert not (place / "none").exists()


def test_a_robot_of_another_file_makes_the_statistics_again(place, capsys):
    robot = Path(__file__).parents[3] / "config" / "robots" / "libero" / "trained_on.yaml"
    own = place / "robot.yaml"
    own.write_text(robot.read_text())
    run_recipe(write_recipe(place, robot="robot.yaml"), place / "robot")
    capsys.readouterr()
    own.write_text(robot.read_text() + "# changed\n")
    run_recipe(write_recipe(place, robot="robot.yaml"), place / "robot")
    assert "statistics: up to date" not in capsys.readouterr().out


def test_scales_are_trained_between_gates_and_bundle_and_only_their_followers_run_again(
    place, capsys
):
    plain = run_recipe(write_recipe(place), place / "trained")
    capsys.readouterr()
    training = {"steps": 2, "batch": 2, "learning_rate": 0.001}
    out = run_recipe(write_recipe(place, training=training), place / "trained")
    printed = capsys.readouterr().out
    assert out == plain
    assert all(f"{step}: up to date" in printed for step in STEPS[:3])
    made = [printed.index(f"{name}: {out}") for name in ("trained_scales", *STEPS[3:5])]
    assert made == sorted(made)
    sha256 = sha256_of(out / "trained_scales.safetensors")
    for name in STEPS[3:5]:
        assert read_gates(out / name / "gates.json").sources["trained_scales_sha256"] == sha256
    run_recipe(write_recipe(place, training=training), place / "trained")
    assert capsys.readouterr().out.count("up to date") == len(STEPS) + 1
    run_recipe(write_recipe(place), place / "trained")
    assert "bundle: up to date" not in capsys.readouterr().out
    assert "trained_scales_sha256" not in read_gates(out / "bundle" / "gates.json").sources
