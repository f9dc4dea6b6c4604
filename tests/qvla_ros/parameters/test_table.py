"""Parameters are written once, as fields of frozen dataclasses, and read by everyone from there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path

import numpy as np
import pytest

from qvla_ros.control.limits import motion_limits
from qvla_ros.control.settings import ControllerSettings
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.errors import QvlaError
from qvla_ros.parameters.bridge import BridgeParameters
from qvla_ros.parameters.policy import PolicyParameters
from qvla_ros.parameters.table import from_values, groups, parameter, seconds, specs

PACKAGE = Path(__file__).parents[3] / "qvla_ros"
KNOWN = {spec.name for table in (PolicyParameters, BridgeParameters) for spec in specs(table)}
COLOURS = {"red": 1}


@dataclass(frozen=True)
class Paint:
    colour: str = parameter("red", "of the arm", choices=COLOURS)
    layers: tuple[int, ...] = parameter((), "thickness of each, um")


@dataclass(frozen=True)
class Arm:
    paint: Paint = Paint()
    drying_s: float = seconds(2.0, "before it moves")
    use_sim_time: bool = False


def test_a_field_is_a_parameter_with_its_type_default_range_and_meaning() -> None:
    drying, colour, layers = specs(Arm)
    assert (drying.name, drying.kind, drying.default) == ("drying_s", "double", 2.0)
    assert (drying.minimum, drying.maximum, drying.description) == (0.0, 3600.0, "before it moves")
    assert (colour.kind, colour.choices) == ("string", ("red",))
    assert (layers.kind, layers.default) == ("integer_array", [])
    assert not any(spec.dynamic for spec in specs(Arm))
    assert [name for name, _ in groups(Arm)] == ["", "paint"]


def test_what_is_registered_later_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COLOURS, "blue", 2)
    assert specs(Paint)[0].choices == ("red", "blue")


def test_values_go_to_their_groups_and_what_is_absent_keeps_its_default() -> None:
    values = {"layers": [1, 2], "use_sim_time": True, "of_another_node": 1}
    assert from_values(Arm, values) == Arm(Paint(layers=(1, 2)), use_sim_time=True)
    with pytest.raises(FrozenInstanceError):
        Arm().drying_s = 0.0  # type: ignore[misc]


def test_reading_parameters_and_the_doctors_checks_of_a_graph_load_no_ros() -> None:
    code = (
        "import sys, qvla_ros.parameters.policy, qvla_ros.parameters.bridge\n"
        "import qvla_ros.doctor.graph_checks\n"
        "print('rclpy' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def _texts() -> list[str]:
    """All string constants of the robot side; of an f-string its parts."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_every_parameter_that_an_error_names_exists() -> None:
    keys = [match for text in _texts() for match in re.findall(r"^parameters? (\w.*)", text)]
    named = {name for key in keys for name in re.findall(r"\w+", key.partition(":")[0])}
    advised = {name for text in _texts() for name in re.findall(r"-p (\w+):=", text)}
    assert len(named) > 10
    assert len(advised) > 10
    placeholders = {"and", "NAME", "name", "use_sim_time"}
    assert (named | advised) - placeholders <= KNOWN


SETTINGS = {
    "period_s": 0.01,
    "max_image_age_s": 1.0,
    "inference_timeout_s": 1.0,
    "max_command_age_s": 1.0,
}


@pytest.mark.parametrize(
    "name",
    [*SETTINGS, "deadman_timeout_s", "max_clock_jump_s", "max_linear_lead", "max_angular_lead_rad"],
)
def test_a_setting_of_the_controller_is_refused_by_the_name_of_its_parameter(name: str) -> None:
    with pytest.raises(QvlaError) as caught:
        ControllerSettings(**{**SETTINGS, name: -1.0})
    assert caught.value.key.removeprefix("parameter ") in KNOWN
    assert name == "period_s" or caught.value.key == f"parameter {name}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("linear_low", [1.0, 2.0]),
        ("max_linear_step", [-1.0]),
        ("max_angular_step_rad", 0.0),
        ("linear_high", [-np.inf]),
    ],
)
def test_a_limit_on_motion_is_refused_by_the_name_of_its_parameter(
    name: str, value: object
) -> None:
    with pytest.raises(QvlaError) as caught:
        motion_limits(3, **{name: value})  # type: ignore[arg-type]
    assert caught.value.key.removeprefix("parameter ") in KNOWN


def test_a_stop_reason_names_only_parameters_that_exist() -> None:
    named = {
        name for reason in StopReason for name in re.findall(r"\w+_(?:s|rad|lead)\b", reason.value)
    }
    assert {"max_image_age_s", "inference_timeout_s", "max_command_age_s"} <= named <= KNOWN
