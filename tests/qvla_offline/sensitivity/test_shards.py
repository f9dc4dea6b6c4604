"""Scores on several workers are those of one process, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.sensitivity.options import SensitivityOptions
from qvla_offline.sensitivity.run import compute_sensitivity
from qvla_ros.cli.main import main
from tests.support.observations import write_observations

pytestmark = pytest.mark.filterwarnings("ignore::qvla_ros.errors.QvlaWarning")
SAMPLES = 3


class Here:
    """A worker that works in this process."""

    def call(self, function: Any, *arguments: Any) -> Any:
        return function(*arguments)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_random_checkpoint(folder / "tiny")
    write_observations(folder / "calibration", SAMPLES, seed=3)
    return folder


def score(place: Path, out: Path, workers: int, **changes: Any) -> bytes:
    options = SensitivityOptions(max_samples=SAMPLES, bits=(0, 4), probes=1, **changes)
    observations = place / "calibration" / "set_3.jsonl"
    helpers = [Here() for _ in range(workers)]
    compute_sensitivity(place / "tiny", observations, out, options, workers=helpers)
    return out.read_bytes()


@pytest.fixture(scope="module")
def alone(place: Path) -> bytes:
    """The file of one process."""
    return score(place, place / "alone.safetensors", 0)


@pytest.mark.parametrize("workers", [2, 5])
def test_any_number_of_workers_gives_the_same_file(
    place: Path, alone: bytes, tmp_path: Path, workers: int
) -> None:
    assert score(place, tmp_path / "spread.safetensors", workers) == alone


def test_another_seed_gives_another_file(place: Path, alone: bytes, tmp_path: Path) -> None:
    assert score(place, tmp_path / "another.safetensors", 2, seed=1) != alone


def test_a_ray_cluster_gives_the_same_file(place: Path, alone: bytes, tmp_path: Path) -> None:
    command = ["sensitivity", "--pretrained_checkpoint", place / "tiny", "--bits", "0,4"]
    command += ["--calib_jsonl", place / "calibration" / "set_3.jsonl", "--probes", 1]
    command += ["--out_path", tmp_path / "ray.safetensors", "--max_samples", SAMPLES]
    assert main([str(word) for word in [*command, "--workers", 2, "--ray", "local"]]) == 0
    assert (tmp_path / "ray.safetensors").read_bytes() == alone


@pytest.mark.parametrize("options", [("--method", "hessian"), ("--resume",)])
def test_what_workers_cannot_do_is_refused(
    place: Path, tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sensitivity", "--pretrained_checkpoint", str(place / "tiny"), "--workers", "1"]
    command += ["--calib_jsonl", str(place / "calibration" / "set_3.jsonl")]
    assert main([*command, "--out_path", str(tmp_path / "s.safetensors"), *options]) == 2
    assert capsys.readouterr().err.startswith("error: workers")
