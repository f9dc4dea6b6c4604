"""`qvla doctor`: what it is given, and what it says of that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qvla_ros.cli import main as cli


@pytest.mark.parametrize("text", ["[1]", "{a", "threads=2"])
def test_engine_options_that_are_no_object_are_refused_by_name(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--no_graph", "--engine_options", text]) == 2
    error = capsys.readouterr().err
    assert "--engine_options" in error
    assert "a JSON object" in error


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("ROS_DOMAIN_ID", "abc"), ("RMW_IMPLEMENTATION", "rmw_none_cpp")),
        *(("ROS_LOG_DIR", "/proc/none"), ("RCUTILS_COLORIZED_OUTPUT", "yes")),
    ],
)
def test_a_variable_that_ros_dies_of_is_a_problem_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert cli.main(["doctor"]) == 1
    found = capsys.readouterr().out
    assert f"problem  environment: {name}: got" in found
    assert value in found
    assert "graph: not looked at" in found


@pytest.mark.parametrize("command", [["record", "--out", "bag"], ["doctor"]])
def test_another_middleware_ends_no_command_without_a_word(
    tmp_path: Path, command: list[str]
) -> None:
    """librcl would end the process while rclpy is imported."""
    environment = {**os.environ, "RMW_IMPLEMENTATION": "rmw_none_cpp"}
    given = [sys.executable, "-m", "qvla_ros.cli.main", *command]
    result = subprocess.run(given, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode in (1, 2)
    assert "RMW_IMPLEMENTATION: got 'rmw_none_cpp'; expected one that is installed" in (
        result.stdout + result.stderr
    )
    assert "Traceback" not in result.stderr
