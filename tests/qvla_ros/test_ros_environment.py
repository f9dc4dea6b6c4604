"""A variable of ROS whose value keeps it from starting, or is ignored, is named with its value."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.ros_environment import environment_errors, installed_middlewares, log_folder

MIDDLEWARES = ("rmw_cyclonedds_cpp", "rmw_fastrtps_cpp")


@pytest.fixture
def well(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path)}


def errors(environment: dict[str, str]) -> list[QvlaError]:
    return list(environment_errors(environment, MIDDLEWARES))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ROS_DOMAIN_ID", ("", "0", "232", " 5")),
        ("RMW_IMPLEMENTATION", ("", "rmw_cyclonedds_cpp")),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", ("", "LOCALHOST", "SYSTEM_DEFAULT")),
        ("RCUTILS_COLORIZED_OUTPUT", ("0", "1")),
        ("FASTDDS_DEFAULT_PROFILES_FILE", ("", __file__)),
        ("ROS_SECURITY_ENABLE", ("true", "false")),
    ],
)
def test_a_value_that_ros_takes_is_no_error(
    well: dict[str, str], name: str, values: tuple[str, ...]
) -> None:
    for value in values:
        assert errors({**well, name: value}) == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *[("ROS_DOMAIN_ID", value, "0 to 232") for value in ("abc", "-1", "1.5", "233", "0x1")],
        ("RMW_IMPLEMENTATION", "rmw_none_cpp", "installed: rmw_cyclonedds_cpp, rmw_fastrtps_cpp"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCAL", "one of SUBNET, LOCALHOST"),
        ("RCUTILS_LOGGING_USE_STDOUT", "yes", "one of 0, 1"),
        ("FASTRTPS_DEFAULT_PROFILES_FILE", "/none.xml", "no such file"),
    ],
)
def test_a_value_that_ros_does_not_take_is_named_and_the_advice_helps(
    well: dict[str, str], name: str, value: str, expected: str
) -> None:
    [error] = errors({**well, name: value})
    assert error.key == name
    assert value in str(error.value)
    assert expected in str(error)
    unset = f"unset {name}" in error.fix
    mended = {} if unset else {name: error.fix.split("=")[1].split(",")[0]}
    assert errors({**well, **mended}) == []


def test_enforced_security_without_keys_is_an_error(well: dict[str, str], tmp_path: Path) -> None:
    enforced = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce"}
    [error] = errors({**well, **enforced})
    assert error.key == "ROS_SECURITY_KEYSTORE"
    assert errors({**well, **enforced, error.key: str(tmp_path)}) == []


@pytest.mark.parametrize(
    ("environment", "name", "folder"),
    [
        ({"ROS_LOG_DIR": "~/logs", "ROS_HOME": "/ros", "HOME": "/h"}, "ROS_LOG_DIR", "/h/logs"),
        ({"ROS_HOME": "/ros", "HOME": "/h"}, "ROS_HOME", "/ros/log"),
        ({"HOME": "/h"}, "HOME", "/h/.ros/log"),
        ({"ROS_LOG_DIR": "", "HOME": ""}, "HOME", None),
    ],
)
def test_logs_go_where_ros_puts_them(
    environment: dict[str, str], name: str, folder: str | None
) -> None:
    assert log_folder(environment) == (name, None if folder is None else Path(folder))


def test_a_log_folder_that_cannot_be_made_is_named_with_its_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for environment in ({"ROS_LOG_DIR": f"{tmp_path}/file"}, {"ROS_HOME": f"{tmp_path}/file"}):
        [error] = errors(environment)
        assert error.key in environment
        assert f"{tmp_path}/file" in str(error.value)
    [error] = errors({})
    assert (error.key, error.value) == ("HOME", "nothing")
    assert errors({"ROS_LOG_DIR": str(tmp_path / "made")}) == []
    assert (tmp_path / "made").is_dir()


def test_the_installed_middlewares_are_found() -> None:
    assert "rmw_fastrtps_cpp" in installed_middlewares(os.environ)
    assert installed_middlewares({"AMENT_PREFIX_PATH": "/none"}) == installed_middlewares({})


def test_ros_itself_dies_of_another_middleware_without_a_word_of_python(
    well: dict[str, str],
) -> None:
    """Why the variables are looked at before ROS starts."""
    command = [sys.executable, "-c", "import rclpy\ntry: rclpy.init()\nexcept Exception: pass"]
    given = {**os.environ, **well, "RMW_IMPLEMENTATION": "rmw_none_cpp"}
    assert subprocess.run(command, env=given, capture_output=True).returncode not in (0, 1)
