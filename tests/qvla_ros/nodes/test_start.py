"""ROS is joined with the profile for large images, or not at all, with the cause by its name."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import rclpy

from qvla_ros.errors import NO_KNOWN_FIX, QvlaError
from qvla_ros.nodes.policy.main import main as policy
from qvla_ros.nodes.start import refusal, set_profile, start_ros
from qvla_ros.resources import share_path
from qvla_ros.ros_environment import PROFILE_VARIABLES
from tests.support.mutated_parameters import mutated, of_ros, of_this

HEAD = "/**:\n  ros__parameters:\n"


def test_the_profile_for_large_images_is_set_unless_one_is_named() -> None:
    profile = str(share_path("config/fastdds.xml"))
    nothing: dict[str, str] = {"HOME": "/root"}
    set_profile(nothing)
    assert nothing == {"HOME": "/root", "FASTDDS_DEFAULT_PROFILES_FILE": profile}
    old = {"ROS_DISTRO": "jazzy"}
    set_profile(old)
    assert old["FASTRTPS_DEFAULT_PROFILES_FILE"] == profile
    for name in (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS"):
        named = {name: "/my.xml"}
        set_profile(named)
        assert named == {name: "/my.xml"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("ROS_DOMAIN_ID", "abc"), ("RMW_IMPLEMENTATION", "rmw_nonsense_cpp")),
        *(("ROS_LOG_DIR", "/proc/none"), ("FASTDDS_DEFAULT_PROFILES_FILE", "/none.xml")),
    ],
)
def test_a_node_names_the_variable_that_keeps_it_from_starting_and_its_value(
    ros_environment: dict,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv(name, value)
    assert policy(["--ros-args", "-p", "bundle:=/none"]) == 2
    error = capfd.readouterr().err
    assert f"error: {name}: got " in error
    assert value in error
    assert "Traceback" not in error


def test_a_peer_that_cannot_be_found_is_named_without_invented_advice(
    ros_environment: dict, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROS_STATIC_PEERS", "no.such.host.invalid")
    assert policy(["--ros-args", "-p", "bundle:=/none"]) == 2
    error = capfd.readouterr().err
    assert "no.such.host.invalid" in error
    assert NO_KNOWN_FIX in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-r", "__ns:=/1st"], r"^-r __ns:=/1st: got what ROS cannot read; .* Fix: write -r FROM"),
        (["-p", "bundle"], r"^-p bundle: got .* a parameter override rule .* Fix: write -p NAME"),
        (["--log-level", "nope"], r"^--log-level nope: got what ROS cannot read; .*severity.*\)$"),
        (["--params-fil", "a"], r"^arguments after --ros-args: got .*--params-fil"),
        (
            ["--enclave", "x"],
            r"^ROS: got .*Enclave name is not valid.*that it starts. Fix: the cause is not",
        ),
    ],
)
def test_an_argument_that_ros_refuses_is_named(
    ros_environment: dict, words: list[str], message: str
) -> None:
    with pytest.raises(QvlaError, match=message):
        start_ros(["--ros-args", *words], rclpy.Context())


def test_what_is_not_known_is_passed_on_as_it_is() -> None:
    error = refusal(RuntimeError("error not set"))
    assert (error.key, str(error.value), error.fix) == ("ROS", "error not set", NO_KNOWN_FIX)


@pytest.fixture
def compared(
    ros_environment: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """compared(text): what this reads of a file is what ROS reads, if it reads it at all."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    path = tmp_path / "node.yaml"

    def compare(text: str) -> None:
        path.write_text(text, encoding="utf-8")
        ours = of_this(path)
        theirs = of_ros(path)
        # ROS may refuse more: it then ends the start. What it takes must not be taken otherwise.
        if ours is not None and theirs is not None:
            assert repr(sorted(ours.items())) == repr(sorted(theirs.items())), text

    return compare


SECTIONS = ("/**", "/*", "/arm/policy", "arm/policy", "/**/policy", "/*/policy", "/arm/*", "policy")
VALUES = (
    *("yes", "Off", "-3", "+1", "010", "0x1F", "0x1F0.8", "1.", ".5", "1e-3", "1e400", "1_000"),
    *(".inf", "-inf", "nan", "~", "null", "1:30", "2020-01-01", "!!str 5.0", "!!float 3", "'7'"),
    *("99999999999999999999", "[1.0, 2.0]", "[a, 'b']", "[]", "{b: 1, c: {d: x}}", '""', "0b1"),
)
# each was read otherwise than ROS reads it once
FOUND = (
    f"{HEAD}    a: 1\n    a: 2\n",
    "arm:\n  policy:\n    ros__parameters: {a: true}\n    ros__parameters: {a: 2}\n",
    f"{HEAD}    a: {{}}\n    b: 1\n",
    f"{HEAD}    a: [[1, 2]]\n",
    "/arm/policy:\n  ros__parameters5:\n    a: 1\n",
)


def test_every_kind_of_section_and_value_is_read_as_ros_reads_it(compared: Callable) -> None:
    for section in SECTIONS:
        compared(f"{section}:\n  ros__parameters:\n    a: 1\n")
    for value in VALUES:
        compared(f"{HEAD}    a: {value}\n")
    for text in FOUND:
        compared(text)


def test_mutated_files_are_read_as_ros_reads_them(compared: Callable) -> None:
    draw = random.Random(4)
    text = share_path("config/robots/franka_cartesian/node.yaml").read_text(encoding="utf-8")
    for _ in range(60):
        compared(mutated(text, draw))
