"""What a policy node does about a fault: a real node process, a fake robot, and what can be done to
them.

The node's own clock judges it: `~/status` says after how many ticks of the control thread, and how
many milliseconds, the stop command went out. What the robot sees is recorded too: which command was
the last, and that none came after it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from qvla.msg import PolicyStatus
from rclpy.context import Context
from std_srvs.srv import SetBool, Trigger

from qvla_ros.bundle import load_bundle
from qvla_ros.evaluation.processes import Child, start, stopped_at_the_end
from qvla_ros.nodes.chunk_message import stamp_ns
from qvla_ros.testing.fake_robot import Command, FakeRobot

NAMESPACE = "x"
PATIENCE_S = 60.0  # for what takes a second on an idle machine
ANSWER_S = 2.0
ATTEMPTS = (
    5  # on a loaded machine another watchdog may bite first: then the fault is provoked again
)
SETTLE_S = 0.25  # how long the robot is watched for commands after the stop
MOVING_COMMANDS = 5
MOVE = "another setpoint"
LIMIT_S = 1.0  # every limit in time, wide enough for a loaded machine
# The end effector is carried about by `sine`; the limits leave it room, the drill is about stops.
PARAMETERS: Mapping[str, Any] = {
    "backend": "sine",
    "linear_low": [-100.0],
    "linear_high": [100.0],
    "linear_scale": 0.05,
    "angular_scale": 0.5,
    "max_linear_lead": 100.0,
    "max_angular_lead_rad": 7.0,
    "max_stamp_spread_s": 0.2,
    "max_image_age_s": LIMIT_S,
    "inference_timeout_s": LIMIT_S,
    "max_command_age_s": LIMIT_S,
    "max_clock_jump_s": LIMIT_S,
    "deadman_timeout_s": LIMIT_S,
    # The robot wants to see every command, to tell which was the last.
    f"qos_overrides./{NAMESPACE}/policy/command.publisher.depth": 1000,
}


@dataclass(frozen=True)
class Outcome:
    """One line of the fault table.

    output: what the node commanded. limit: what must pass before it counts as a fault. stop_reason:
    as in PolicyStatus. command: what the robot was told last: "hold", "zero twist", or "" for
    nothing. commands_after: how many came later, 0 as it must be. delay_ticks, delay_s: from the
    limit to the stop command, by the node's clocks. last_command_s: from the injection to the last
    command's arrival, robot's clock.
    """

    output: str
    fault: str
    limit: str
    stop_reason: str
    command: str
    commands_after: int
    delay_ticks: int
    delay_s: float
    last_command_s: float


class Spoiled(Exception):
    """Something else than the fault happened first."""


class Drill:
    """A node that commands a fake robot, and the faults that can be put on the two."""

    def __init__(self, robot: FakeRobot, node: Child, fault_file: Path) -> None:
        self.robot = robot
        self.node = node
        self._fault_file = fault_file
        create = robot.node.create_client
        self._arm: Any = create(SetBool, "policy/arm")
        self._cancel: Any = create(Trigger, "policy/cancel")
        self._change_state: Any = create(ChangeState, "policy/change_state")

    def provoke(
        self,
        fault: str,
        limit: str,
        stop_reason: str,
        inject: Callable[[], None],
        mend: Callable[[], None],
    ) -> Outcome:
        """Arm, wait until the robot is commanded, inject, wait for the stop, mend."""
        for _ in range(ATTEMPTS):
            self.move()
            before = len(self.robot.statuses)
            injected_s = time.monotonic()
            inject()
            status = wait_for(
                partial(self._stopped_since, before), f"a stop after {fault}", self.describe
            )
            time.sleep(SETTLE_S)
            mend()
            if status.stop_reason == stop_reason:
                return self._outcome(fault, limit, status, injected_s)
        raise Spoiled(
            f"{fault}: {ATTEMPTS} times something else stopped the robot first; {self.describe()}"
        )

    def engine_fault(self, text: str) -> Callable[[], None]:
        """Have the next inference fail so, see FakeEngine."""

        def write() -> None:
            temporary = self._fault_file.with_suffix(".new")
            temporary.write_text(text)
            temporary.rename(self._fault_file)

        return write

    def quirk(self, **values: Any) -> Callable[[], None]:
        """Change what is wrong with the robot."""

        def change() -> None:
            self.robot.quirks = replace(self.robot.quirks, **values)

        return change

    def cancel(self) -> None:
        self._ask(self._cancel, Trigger.Request())

    def disarm(self) -> None:
        self._ask(self._arm, SetBool.Request(data=False))

    def deactivate(self) -> None:
        self._transit(Transition.TRANSITION_DEACTIVATE)

    def activate(self) -> None:
        self._transit(Transition.TRANSITION_ACTIVATE)

    def reactivate(self) -> None:
        """What a fault of the engine asks for."""
        self._transit(Transition.TRANSITION_DEACTIVATE)
        self._transit(Transition.TRANSITION_ACTIVATE)

    def signal(self, number: int) -> Callable[[], None]:
        return lambda: self.node.process.send_signal(number)

    def kill(self) -> Outcome:
        """SIGKILL: nobody is left to send a stop, so the robot's own command timeout must do it."""
        self.move()
        killed_s = time.monotonic()
        self.node.process.kill()
        self.node.process.wait()
        time.sleep(SETTLE_S)  # what was on its way arrives
        seen = len(self.robot.commands)
        last_s = self.robot.commands[-1].arrived_s - killed_s
        time.sleep(SETTLE_S)
        after = len(self.robot.commands) - seen
        limit = "the robot's own timeout"
        return Outcome(
            self.robot.output, "policy killed (SIGKILL)", limit, "", "", after, 0, 0.0, last_s
        )

    def describe(self) -> str:
        """For error messages: the last status, and what the node said last."""
        last = self.robot.statuses[-1] if self.robot.statuses else None
        return f"status {last}; node: {' / '.join(self.node.last_words())}"

    def move(self) -> None:
        """Arm, and return once the robot is commanded."""

        def moving() -> bool:
            assert self.node.process.poll() is None, self.describe()
            seen = len(self.robot.commands)
            self._ask(self._arm, SetBool.Request(data=True))
            end_s = time.monotonic() + ANSWER_S
            while time.monotonic() < end_s and len(self.robot.commands) < seen + MOVING_COMMANDS:
                time.sleep(0.01)
            last = self.robot.statuses[-1] if self.robot.statuses else None
            return (
                last is not None
                and last.armed
                and len(self.robot.commands) >= seen + MOVING_COMMANDS
            )

        wait_for(moving, "the robot to move", self.describe)

    def _stopped_since(self, before: int) -> PolicyStatus | None:
        found = (s for s in self.robot.statuses[before:] if s.stop_reason and not s.armed)
        return next(found, None)

    def _outcome(self, fault: str, limit: str, status: PolicyStatus, injected_s: float) -> Outcome:
        commands = self.robot.commands
        told = _stop_command(commands, stamp_ns(status.stop_stamp))
        name = ""
        after = 0
        if told is not None:
            name = _meaning(commands, told)
            after = len(commands) - 1 - told
        return Outcome(
            output=self.robot.output,
            fault=fault,
            limit=limit,
            stop_reason=status.stop_reason,
            command=name,
            commands_after=after,
            delay_ticks=status.stop_delay_ticks,
            delay_s=status.stop_delay_s,
            last_command_s=commands[-1].arrived_s - injected_s,
        )

    def _transit(self, transition: int) -> None:
        request = ChangeState.Request()
        request.transition.id = transition
        self._ask(self._change_state, request)

    def _ask(self, client: Any, request: Any) -> Any:
        """The answer; asked again when it gets lost, which happens while DDS connects."""
        return wait_for(
            lambda: self.robot.call(client, request, ANSWER_S), client.srv_name, self.describe
        )


@contextmanager
def drill(
    context: Context,
    bundle_dir: Path,
    environment: Mapping[str, str],
    directory: Path,
    rate_hz: float = 40.0,
    **parameters: Any,
) -> Iterator[Drill]:
    """A running policy node with `parameters` over PARAMETERS, and a robot that streams to it; both
    end with the block.

    environment: a private ROS graph's, which this process is in as well.
    """
    fault_file = directory / "fault"
    given = {
        **PARAMETERS,
        "bundle": str(bundle_dir),
        "engine_options": json.dumps({"fault_file": str(fault_file)}),
        **parameters,
    }
    arguments = ["-m", "qvla_ros.nodes.policy", "--ros-args", "-r", f"__ns:=/{NAMESPACE}"]
    for name, value in given.items():
        arguments += ["-p", f"{name}:={json.dumps(value)}"]
    node = start(f"policy_{given['output']}", arguments, environment, directory)
    with stopped_at_the_end([node]):
        sim_time = bool(given.get("use_sim_time"))
        robot = FakeRobot(
            context, load_bundle(bundle_dir), NAMESPACE, given["output"], rate_hz, sim_time
        )
        try:
            yield Drill(robot, node, fault_file)
        finally:
            robot.close()


def _stop_command(commands: Sequence[Command], stop_ns: int) -> int | None:
    """Index of the first stop among the commands stamped `stop_ns`: in simulated time it shares its
    stamp with those just before. Trajectories have no stamps: the first that repeats the one before
    and is followed by no other.
    """
    if commands[-1].stamp_ns:
        told = [index for index, command in enumerate(commands) if command.stamp_ns == stop_ns]
        return next(
            (index for index in told if _meaning(commands, index) != MOVE),
            told[-1] if told else None,
        )
    index = len(commands) - 1
    while index > 0 and _meaning(commands, index) != MOVE:
        index -= 1
    return index + 1 if index + 1 < len(commands) else None


def _meaning(commands: Sequence[Command], index: int) -> str:
    """What the robot is told: to stay, by no velocity or by the setpoint of before, or to MOVE."""
    numbers = commands[index].numbers
    if not numbers.any():
        return "zero twist"
    return "hold" if index > 0 and np.array_equal(numbers, commands[index - 1].numbers) else MOVE


def wait_for(condition: Callable[[], Any], what: str, describe: Callable[[], str]) -> Any:
    """What `condition` gives once it is true."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        if time.monotonic() > deadline_s:
            raise Spoiled(f"waited {PATIENCE_S:g} s for {what}; {describe()}")
        time.sleep(0.01)
    return result
