"""The files in config/ hold declared values, and each robot's fit the bundles for it."""

from __future__ import annotations

import configparser
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from qvla_offline.robot import LIBERO, RobotDescription, read_robot
from qvla_ros.bundle import ActionSpec
from qvla_ros.control.limits import motion_limits
from qvla_ros.control.setpoint import motion_spec
from qvla_ros.doctor.environment import REAL_TIME_PRIORITY
from qvla_ros.doctor.parameter_checks import parameter_findings
from qvla_ros.nodes.policy.outputs.form import command_form
from qvla_ros.parameters.bridge import BridgeParameters
from qvla_ros.parameters.policy import PolicyParameters
from qvla_ros.parameters.table import ParameterSpec, from_values, specs

PARAMETERS = specs(PolicyParameters)
CONFIG = Path(__file__).parent.parent / "config"
SERVICE = CONFIG / "systemd" / "qvla-policy.service"
ROBOTS = sorted(file.parent.name for file in CONFIG.glob("robots/*/remaps.yaml"))
PHASES = ("dry_run", "observe", "slow")
FILES = {
    "policy.yaml": PARAMETERS,
    "robots/libero/node.yaml": (*PARAMETERS, *specs(BridgeParameters)),
    **{f"robots/{robot}/node.yaml": PARAMETERS for robot in ROBOTS},
    **{f"phases/{phase}.yaml": PARAMETERS for phase in PHASES},
}


def _values(file: str) -> dict[str, Any]:
    content = yaml.safe_load((CONFIG / file).read_text(encoding="utf-8"))
    assert list(content) == ["/**"]  # matches the nodes in any namespace
    assert list(content["/**"]) == ["ros__parameters"]
    return content["/**"]["ros__parameters"]


def _with_defaults(*files: str) -> dict[str, Any]:
    values = {spec.name: spec.default for spec in PARAMETERS}
    for file in files:
        values |= _values(file)
    return values


def _actions(robot: RobotDescription) -> ActionSpec:
    spec = robot.actions
    fields = {
        name: getattr(spec, name)
        for name in ("names", "kind", "frame", "units", "gripper_index", "gripper_convention")
    }
    return ActionSpec(
        **fields,
        chunk_length=8,
        control_period_s=spec.control_period_s,
        normalization="q99",
        limits=spec.limits,
    )


def test_every_parameter_file_is_looked_at() -> None:
    found = {
        str(path.relative_to(CONFIG))
        for pattern in ("*.yaml", "phases/*.yaml", "robots/*/node.yaml")
        for path in CONFIG.glob(pattern)
    }
    assert found == set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_a_parameter_file_holds_declared_parameters_of_their_types_within_their_ranges(
    file: str,
) -> None:
    declared: dict[str, ParameterSpec] = {spec.name: spec for spec in FILES[file]}
    for name, value in _values(file).items():
        spec = declared[name]
        assert type(value) is type(spec.default), name
        if isinstance(value, list) and spec.default:
            assert all(type(item) is type(spec.default[0]) for item in value), name
        assert not spec.choices or value in spec.choices, name
        assert spec.minimum is None or spec.minimum <= value <= spec.maximum, name


@pytest.mark.parametrize("robot", ROBOTS)
def test_a_robot_may_lead_by_what_a_late_arm_needs_and_hardly_more(robot: str) -> None:
    """At full speed an arm that is late by t is led by speed times t."""
    values = _with_defaults(f"robots/{robot}/node.yaml")
    if values["output"] == "twist":
        return  # which goes from where the arm is: its motion is compared instead
    fastest = max(values["max_linear_velocity"])
    assert 0.05 * fastest <= values["max_linear_lead"] <= 0.15 * fastest
    if values["output"] == "pose":
        fastest_turn = values["max_angular_velocity_rad_s"]
        assert 0.05 * fastest_turn <= values["max_angular_lead_rad"] <= 0.15 * fastest_turn


@pytest.mark.parametrize("file", FILES)
def test_all_of_a_parameter_file_is_in_force_in_any_namespace(file: str) -> None:
    for node in ("/policy", "/left/arm/policy"):
        _, [finding] = parameter_findings(CONFIG / file, node)
        assert finding.status == "ok", finding


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("phase", [None, *PHASES])
def test_a_robots_parameters_go_with_the_bundles_that_are_exported_for_it(
    robot: str, phase: str | None
) -> None:
    actions = _actions(read_robot(CONFIG / "robots" / robot))
    phase_files = [] if phase is None else [f"phases/{phase}.yaml"]
    values = _with_defaults(f"robots/{robot}/node.yaml", *phase_files)
    if phase == "dry_run":
        assert (values["output"], values["gripper_output"]) == ("none", "none")
        return
    given = from_values(PolicyParameters, values)
    commands = given.commands
    form = command_form(commands, given.watchdogs.stop_action, actions, 1 / commands.control_hz)
    spec = motion_spec(actions, commands.linear_scale or None, commands.angular_scale or None)
    axes = 3 if spec.is_pose else len(form.joints)
    limits = motion_limits(axes, **asdict(given.limits))
    assert all(
        map(
            math.isfinite,
            [*limits.linear_low, *limits.linear_high, *limits.max_linear_acceleration],
        )
    )
    assert values["deadman"]
    # A step limit that bites before the velocity limit does would only be found out on the arm.
    assert (limits.max_linear_step >= limits.max_linear_velocity / values["control_hz"]).all()


@pytest.mark.parametrize("robot", ["franka_cartesian", "ur_servo"])
def test_a_policy_trained_in_liberos_units_runs_on_a_robot_with_their_size(
    robot: str,
) -> None:
    given = from_values(PolicyParameters, _with_defaults(f"robots/{robot}/node.yaml"))
    commands = given.commands
    stop_action = given.watchdogs.stop_action
    command_form(commands, stop_action, _actions(LIBERO), 1 / commands.control_hz)
    # what config/README.md says
    assert motion_spec(_actions(LIBERO), 0.05, 0.5).linear_scale == 0.05


@pytest.mark.parametrize("robot", ROBOTS)
def test_slow_is_slower_than_the_robots_own_limits(robot: str) -> None:
    full = _with_defaults(f"robots/{robot}/node.yaml")
    slow = _values("phases/slow.yaml")
    for name, value in slow.items():
        own = full[name]
        assert (max(value) < min(own)) if isinstance(own, list) else value < own, name


def test_a_twist_is_repeated_faster_than_servo_gives_up() -> None:
    values = _with_defaults("robots/ur_servo/node.yaml")
    assert values["output"] == "twist"
    assert values["control_hz"] > 1 / 0.1  # MoveIt Servo: incoming_command_timeout


def test_the_service_runs_in_real_time_as_the_launch_files_say_and_brakes_when_it_is_ended() -> (
    None
):
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    unit.read_string(SERVICE.read_text(encoding="utf-8").replace("\\\n", " "))
    service = unit["Service"]
    assert service["CPUSchedulingPolicy"] == "fifo"
    assert int(service["CPUSchedulingPriority"]) == REAL_TIME_PRIORITY
    assert int(service["LimitRTPRIO"]) >= REAL_TIME_PRIORITY
    assert service["KillSignal"] == "SIGINT"
    launched = dict(word.split(":=") for word in re.findall(r"\w+:=[^\s']+", service["ExecStart"]))
    assert launched["robot"] in ROBOTS
    assert set(launched) == {"robot", "bundle", "namespace", "phase"}
