"""Kinds of commands: the registry from which the parameter `output` chooses one by name.

What is known of an output without ROS stands in its entry here, and how a motion becomes its
message in a module of its own, which is imported when the output is chosen. To add one:
docs/how_to/add_output.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qvla_ros.control.action_kinds import Moves
from qvla_ros.errors import QvlaError

StopAction = Literal["hold", "zero", "none"]


@dataclass(frozen=True)
class Output:
    """One kind of command.

    name: the value of `output` that chooses it. moves: what its setpoints are, joint positions or
    the end effector's pose. sends: positions to be reached, velocities to be kept, or trajectories
    that are sent ahead of their time and end at rest. message_type: as ROS prints it. module: the
    dotted name of a module that holds `message(form: CommandForm, motion: MotionState, now_ns:
    int)`, which gives such a message; for trajectories, of joints only, `message(form, trajectory:
    Trajectory, now_ns)`.
    """

    name: str
    moves: Moves
    sends: Literal["positions", "velocities", "trajectories"]
    message_type: str
    module: str

    @property
    def stop_actions(self) -> tuple[StopAction, ...]:
        """What a stop may command with it, the usual one first.

        A position can be held, a velocity cannot; a velocity has a zero, a position has none.
        """
        return ("zero", "none") if self.sends == "velocities" else ("hold", "none")

    @property
    def follows_measured(self) -> bool:
        """Whether deltas go from the measured state instead of the last command.

        They do with velocities, because velocities do not add up to a known position.
        """
        return self.sends == "velocities"


_NODE = "qvla_ros.nodes.policy.outputs"
_GRIPPERS = "qvla_ros.nodes.policy.grippers"
OUTPUTS = {
    output.name: output
    for output in (
        Output(
            "joint_trajectory",
            "joints",
            "trajectories",
            "trajectory_msgs/msg/JointTrajectory",
            f"{_NODE}.joint_trajectory",
        ),
        Output("twist", "pose", "velocities", "geometry_msgs/msg/TwistStamped", f"{_NODE}.twist"),
        Output("pose", "pose", "positions", "geometry_msgs/msg/PoseStamped", f"{_NODE}.pose"),
        Output(
            "position_array",
            "joints",
            "positions",
            "std_msgs/msg/Float64MultiArray",
            f"{_NODE}.position_array",
        ),
    )
}


def register_output(output: Output) -> None:
    """Adds an output to the registry of this process; QvlaError if its name is taken."""
    if output.name in ("none", *OUTPUTS):
        raise QvlaError(
            "output name",
            repr(output.name),
            f"none of {', '.join(OUTPUTS)}, which are taken",
            "register it under another name",
        )
    OUTPUTS[output.name] = output


# The value of `gripper_output` that chooses one, and the dotted name of a module that holds
# `make(node: Node, parameters: CommandParameters, closed: float, opened: float)`, which gives a
# GripperOutput; imported when it is chosen.
GRIPPER_OUTPUTS = {
    "position": f"{_GRIPPERS}.position",
    "parallel_gripper_command": f"{_GRIPPERS}.parallel_gripper_command",
}


def gripper_output_names() -> tuple[str, ...]:
    """The values of the parameter `gripper_output`."""
    return ("none", *GRIPPER_OUTPUTS)


def output_names() -> tuple[str, ...]:
    """The values of the parameter `output`: "none", then what is registered now."""
    return ("none", *OUTPUTS)


def fitting(moves: Moves) -> list[Output]:
    """The registered outputs that move "joints", or the "pose"."""
    return [output for output in OUTPUTS.values() if output.moves == moves]
