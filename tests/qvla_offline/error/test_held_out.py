"""The observations of `qvla error` are held out: what was calibrated on is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from qvla_offline.calibration import calibration_sha256
from qvla_offline.fakequant import target_shapes
from qvla_offline.gates import uniform, write_gates
from qvla_ros.errors import QvlaWarning
from tests.support.observations import error, write_observations


@pytest.mark.filterwarnings("ignore::qvla_ros.errors.QvlaWarning")
def test_an_observation_that_was_calibrated_on_is_refused_whatever_file_it_lies_in(place, capsys):
    folder = place / "held_out"
    calibration = write_observations(folder, 3, seed=2)
    third = (folder / "set_1.jsonl").read_text().splitlines()[2]
    renamed = json.loads(third) | {"image": "copy.png", "episode": 99}
    shutil.copy(folder / json.loads(third)["image"], folder / "copy.png")
    assert error(place, "--uniform", "4", "--calibration", calibration) == 0
    calibration.write_text(calibration.read_text() + json.dumps(renamed) + "\n")
    assert error(place, "--uniform", "4", "--calibration", calibration) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: observations\n")
    assert "1 of 12 observations" in printed
    assert "first number 3" in printed


@pytest.mark.filterwarnings("ignore::qvla_ros.errors.QvlaWarning")
def test_the_calibration_set_beside_the_checkpoint_is_compared_without_being_named(place, capsys):
    beside = place / "tiny" / "calibration.jsonl"
    shutil.copytree(place / "held_out", place / "tiny", dirs_exist_ok=True)
    shutil.copy(place / "held_out" / "set_1.jsonl", beside)
    try:
        assert error(place, "--uniform", "4") == 2
        assert str(beside) in capsys.readouterr().err
    finally:
        beside.unlink()


def calibrated_on(place, digest: str):
    gates = uniform({name: rows for name, (rows, _) in target_shapes(place / "tiny").items()}, 4)
    path = place / "calibrated.json"
    write_gates(path, replace(gates, sources={"calibration_sha256": digest}))
    return path


@pytest.mark.filterwarnings("ignore::qvla_ros.errors.QvlaWarning")
@pytest.mark.parametrize("max_samples", [None, 1, 7, 32])
def test_gates_that_were_calibrated_on_lines_of_the_very_file_refuse_it_by_its_hash(
    place, capsys, max_samples
):
    digest = calibration_sha256(place / "held_out" / "set_1.jsonl", max_samples)
    assert error(place, "--gates_path", calibrated_on(place, digest)) == 2
    assert "a calibration set of these gates" in capsys.readouterr().err


def test_gates_of_an_unknown_calibration_set_are_measured_with_a_warning(place):
    with pytest.warns(QvlaWarning, match="name it with --calibration"):
        assert error(place, "--gates_path", calibrated_on(place, "0" * 64)) == 0


def test_few_observations_are_measured_with_a_warning(place):
    with pytest.warns(QvlaWarning, match="has 12, expected 32 or more"):
        assert error(place, "--uniform", "8") == 0


def test_an_empty_set_is_refused(place, capsys):
    (place / "empty.jsonl").write_text("\n")
    assert error(place, "--uniform", "4", observations="empty.jsonl") == 2
    assert "no usable line" in capsys.readouterr().err
