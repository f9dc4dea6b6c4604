"""The form of a node's commands, checked against the bundle before any is sent."""

from __future__ import annotations

from dataclasses import dataclass

from qvla_ros.bundle import ActionSpec
from qvla_ros.control.action_kinds import action_kind
from qvla_ros.control.outputs import OUTPUTS, Output, StopAction, fitting
from qvla_ros.errors import QvlaError
from qvla_ros.parameters.policy import CommandParameters

# Of a command on a loaded machine, from when it is due to when the robot's controller has it.
MAX_LOOK_AHEAD_S = 0.3
EXPECTED_LATENCY_S = 0.05


@dataclass(frozen=True)
class CommandForm:
    """The form of the messages that command a robot.

    frame: the frame_id of the messages. joints: in the order of the setpoint's numbers. period_s:
    from one command to the next. look_ahead_s: how far ahead of their time trajectories are sent.
    with_velocities: whether their points have velocities.
    """

    output: Output
    stop_action: StopAction
    frame: str
    joints: tuple[str, ...]
    period_s: float
    look_ahead_s: float = 0.0
    with_velocities: bool = True


def command_form(
    parameters: CommandParameters, stop_action: str, actions: ActionSpec, period_s: float
) -> CommandForm:
    """Makes the form of the commands that the node's parameters ask for.

    parameters: `output` is not "none". stop_action: that of the watchdogs.

    QvlaError where output, stop action, joints and bundle do not fit.
    """
    output = OUTPUTS[parameters.output]
    _require_fitting_actions(output, actions)
    if output.moves == "joints":
        _require_joints(parameters.joints, actions)
    return CommandForm(
        output,
        _chosen_stop_action(output, stop_action),
        parameters.command_frame or actions.frame,
        parameters.joints,
        period_s,
        _look_ahead_s(parameters.look_ahead_s, period_s) if output.sends == "trajectories" else 0.0,
        parameters.trajectory_velocities,
    )


def _look_ahead_s(asked_s: float, period_s: float) -> float:
    """A message is sent within a period, and may then take EXPECTED_LATENCY_S."""
    if asked_s == 0.0:
        return period_s + max(period_s, EXPECTED_LATENCY_S)
    if asked_s < 2.0 * period_s:
        expected = f"0, or two periods of control_hz at least: {2.0 * period_s:g}"
        fix = "leave look_ahead_s out, or raise control_hz"
        raise QvlaError("parameter look_ahead_s", asked_s, expected, fix)
    if asked_s > MAX_LOOK_AHEAD_S + 2.0 * period_s:
        expected = f"at most two periods and {MAX_LOOK_AHEAD_S:g} s: a stop begins half of it later"
        fix = "leave look_ahead_s out"
        raise QvlaError("parameter look_ahead_s", asked_s, expected, fix)
    return asked_s


def _require_fitting_actions(output: Output, actions: ActionSpec) -> None:
    kind = action_kind(actions.kind)
    if output.moves != kind.moves:
        names = ", ".join(each.name for each in fitting(kind.moves))
        fix = f"choose one of {names}, or a bundle of another kind"
        expected = f"an output for actions of kind {kind.name}"
        raise QvlaError("parameter output", output.name, expected, fix)
    if output.sends == "velocities" and not kind.is_delta:
        others = [each.name for each in fitting(kind.moves) if each.sends != "velocities"]
        expected = (
            f"{', '.join(others)}: velocities towards a place are not corrected by where the arm "
            "went, so it would part from it"
        )
        fix = f"-p output:={others[0]}, or a bundle of deltas"
        raise QvlaError("parameter output", output.name, expected, fix)


def _require_joints(joints: tuple[str, ...], actions: ActionSpec) -> None:
    moving = [name for index, name in enumerate(actions.names) if index != actions.gripper_index]
    size = len(moving)
    if len(joints) != size or len(set(joints)) != size:
        fix = f"name the robot's joints in the order of the bundle's actions {list(actions.names)}"
        raise QvlaError("parameter joints", list(joints), f"{size} distinct names", fix)
    if set(joints) == set(moving) and list(joints) != moving:
        fix = "put them in this order"
        raise QvlaError("parameter joints", list(joints), f"the bundle's order {moving}", fix)


def _chosen_stop_action(output: Output, stop_action: str) -> StopAction:
    if stop_action == "auto":
        return output.stop_actions[0]
    for possible in output.stop_actions:
        if possible == stop_action:
            return possible
    expected = f"an action that output {output.name} can express"
    raise QvlaError("parameter stop_action", stop_action, expected, "-p stop_action:=auto")
