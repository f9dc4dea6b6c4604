"""`qvla doctor`: what it is given, and what it says of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvla_ros.cli import main as cli
from qvla_ros.cli.doctor import read_parameters, read_remaps
from qvla_ros.errors import QvlaError
from qvla_ros.resources import share_path


def test_the_remaps_of_every_robot_are_read() -> None:
    files = sorted(share_path("config/robots").glob("*/remaps.yaml"))
    assert files
    for file in files:
        assert all(topic.startswith("/") for topic in read_remaps(file).values())


@pytest.mark.parametrize("text", ["- a\n", "joint_states: 3\n", "a: [", ""])
def test_a_file_that_is_no_map_of_names_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "remaps.yaml").write_text(text)
    with pytest.raises(QvlaError, match="remaps_file") as caught:
        read_remaps(tmp_path / "remaps.yaml")
    assert "config/robots/*/remaps.yaml" in caught.value.fix


@pytest.mark.parametrize("text", ["[1]", "{a", "threads=2"])
def test_engine_options_that_are_no_object_are_refused_by_name(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--no_graph", "--engine_options", text]) == 2
    error = capsys.readouterr().err
    assert "--engine_options" in error
    assert "a JSON object" in error


def test_parameter_files_of_robots_are_read_and_others_refused(tmp_path: Path) -> None:
    assert read_parameters(share_path("config/robots/ur_servo/node.yaml"))["output"] == "twist"
    (tmp_path / "parameters.yaml").write_text("output: twist")
    with pytest.raises(QvlaError, match="--params_file"):
        read_parameters(tmp_path / "parameters.yaml")
