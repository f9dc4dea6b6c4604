"""Puts a fault on a real policy node and a fake robot, and records how the node stops.

The node's own clock measures it: `~/status` has the ticks of the control thread and the
milliseconds until the stop command went out. What the robot receives is recorded too: which command
was the last, and that none came after it.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from qvla.msg import PolicyStatus
from rclpy.context import Context
from std_srvs.srv import SetBool, Trigger

from qvla_ros.bundle import load_bundle
from qvla_ros.control.outputs import OUTPUTS
from qvla_ros.evaluation.processes import Child, start, stopped_at_the_end
from qvla_ros.nodes.chunk_message import stamp_ns
from qvla_ros.testing.fake_robot import FakeRobot
from qvla_ros.testing.stop_command import find_rest, hardest_braking, meaning

NAMESPACE = "x"
PATIENCE_S = 60.0  # for what takes a second on an idle machine
ANSWER_S = 2.0
# On a loaded machine another watchdog may act first: then the fault is provoked again.
ATTEMPTS = 5
SETTLE_S = 0.25  # how long the robot is watched for commands after the stop
MOVING_COMMANDS = 5
BRAKING_COMMANDS = 30  # more than a stop takes within the limits below
PERIOD_S = 0.01
LIMIT_S = 1.0  # every limit in time, wide enough for a loaded machine
# The engine `sine` moves the end effector, and the limits leave it room: the drill is about stops.
PARAMETERS: Mapping[str, Any] = {
    "backend": "sine",
    "control_hz": 1.0 / PERIOD_S,
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
    "max_stall_s": LIMIT_S,
    "deadman_timeout_s": LIMIT_S,
    # The robot must receive every command, to know which was the last.
    f"qos_overrides./{NAMESPACE}/policy/command.publisher.depth": 1000,
}


@dataclass(frozen=True)
class DrillOutcome:
    """One line of the fault table.

    output: what the node commanded. limit: what must pass before it counts as a fault. stop_reason:
    as in PolicyStatus. command: what the robot was braked to, "hold" or "zero twist"; "": nothing.
    commands_after: how many came later; it must be 0. braking: the largest change of velocity in
    the last BRAKING_COMMANDS commands, m/s^2 or rad/s^2, not a number for trajectories.
    delay_ticks, delay_s: from the limit to
    the first command of the stop, by the node's clocks. last_command_s: from the injection to the
    last command's arrival, by the robot's clock.
    """

    output: str
    fault: str
    limit: str
    stop_reason: str
    command: str
    commands_after: int
    braking: float
    delay_ticks: int
    delay_s: float
    last_command_s: float


@dataclass(frozen=True)
class DrilledFault:
    """One fault, and how the node must stop after it.

    limit: what must pass before it counts, in words. stop_reason: as in PolicyStatus. inject, fix:
    what causes the fault and what ends it; some need no end.
    """

    name: str
    limit: str
    stop_reason: str
    inject: Callable[[Drill], None]
    fix: Callable[[Drill], None] = lambda _: None


class Spoiled(Exception):
    """Something else than the fault happened first."""


class Drill:
    """A policy node and the fake robot that it commands, and what can be done to the two."""

    def __init__(self, robot: FakeRobot, node: Child, fault_file: Path) -> None:
        self.robot = robot
        self.node = node
        self._fault_file = fault_file
        create = robot.node.create_client
        self._arm: Any = create(SetBool, "policy/arm")
        self._cancel: Any = create(Trigger, "policy/cancel")
        self._change_state: Any = create(ChangeState, "policy/change_state")

    def provoke(self, fault: DrilledFault) -> DrillOutcome:
        """Arms, waits for commands, injects the fault, waits for the stop, and fixes the fault."""
        for _ in range(ATTEMPTS):
            begin = len(self.robot.commands)
            self.move()
            before = len(self.robot.statuses)
            injected_s = time.monotonic()
            fault.inject(self)
            status = wait_for(
                partial(self._stopped_since, before), f"a stop after {fault.name}", self.describe
            )
            time.sleep(SETTLE_S)
            fault.fix(self)
            if status.stop_reason == fault.stop_reason:
                return self._outcome(fault, status, injected_s, begin)
        raise Spoiled(
            f"{fault.name}: {ATTEMPTS} times something else stopped the robot first; "
            f"{self.describe()}"
        )

    def fail_next_inference(self, text: str) -> None:
        """Makes the next inference fail as `text` asks, see FakeEngine."""
        temporary = self._fault_file.with_suffix(".new")
        temporary.write_text(text)
        temporary.rename(self._fault_file)

    def set_quirks(self, **values: Any) -> None:
        """Changes what is wrong with the robot."""
        self.robot.quirks = replace(self.robot.quirks, **values)

    def cancel(self) -> None:
        self._ask(self._cancel, Trigger.Request())

    def disarm(self) -> None:
        self._ask(self._arm, SetBool.Request(data=False))

    def deactivate(self) -> None:
        self._transit(Transition.TRANSITION_DEACTIVATE)

    def activate(self) -> None:
        self._transit(Transition.TRANSITION_ACTIVATE)

    def reactivate(self) -> None:
        """Deactivates and activates the node, as it must be after a fault of the engine."""
        self._transit(Transition.TRANSITION_DEACTIVATE)
        self._transit(Transition.TRANSITION_ACTIVATE)

    def send(self, number: int) -> None:
        """Sends a signal to the node's process."""
        self.node.process.send_signal(number)

    def stall(self) -> None:
        """Keeps the node's process from running for longer than any limit."""
        self.send(signal.SIGSTOP)
        time.sleep(1.5 * LIMIT_S)
        self.send(signal.SIGCONT)

    def kill(self) -> DrillOutcome:
        """Kills the node: it sends no stop, so the robot's own command timeout must act."""
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
        return DrillOutcome(
            self.robot.output, "policy killed (SIGKILL)", limit, "", "", after, 0.0, 0, 0.0, last_s
        )

    def describe(self) -> str:
        """The node's last status and last log lines, for error messages."""
        last = self.robot.statuses[-1] if self.robot.statuses else None
        return f"status {last}; node: {' / '.join(self.node.last_words())}"

    def move(self) -> None:
        """Arms, and returns once the robot is commanded."""

        def moving() -> bool:
            assert self.node.process.poll() is None, self.describe()
            seen = len(self.robot.commands)
            if not self._ask(self._arm, SetBool.Request(data=True)).success:
                return False
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

    def _outcome(
        self, fault: DrilledFault, status: PolicyStatus, injected_s: float, begin: int
    ) -> DrillOutcome:
        commands = self.robot.commands[begin:]
        stop = find_rest(commands, stamp_ns(status.stop_stamp))
        is_course = self.robot.output == "joint_trajectory"
        are_velocities = OUTPUTS[self.robot.output].sends == "velocities"
        return DrillOutcome(
            output=self.robot.output,
            fault=fault.name,
            limit=fault.limit,
            stop_reason=status.stop_reason,
            command="" if stop is None else meaning(commands, stop),
            commands_after=0 if stop is None else len(commands) - 1 - stop,
            braking=math.nan
            if is_course
            else hardest_braking(commands[-BRAKING_COMMANDS:], PERIOD_S, are_velocities),
            delay_ticks=status.stop_delay_ticks,
            delay_s=status.stop_delay_s,
            last_command_s=commands[-1].arrived_s - injected_s,
        )

    def _transit(self, transition: int) -> None:
        request = ChangeState.Request()
        request.transition.id = transition
        self._ask(self._change_state, request)

    def _ask(self, client: Any, request: Any) -> Any:
        """The service's answer; asks again when it gets lost, which happens while DDS connects."""
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
    """Runs a policy node and a robot that streams to it until the block ends.

    parameters: the node's, over PARAMETERS. environment: that of a private ROS graph, which this
    process is in as well.
    """
    fault_file = directory / "fault"
    given = {
        **PARAMETERS,
        "bundle": str(bundle_dir),
        "engine_options.fault_file": str(fault_file),
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


def wait_for(condition: Callable[[], Any], what: str, describe: Callable[[], str]) -> Any:
    """Waits until `condition` is true and returns its result; Spoiled after PATIENCE_S."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        if time.monotonic() > deadline_s:
            raise Spoiled(f"waited {PATIENCE_S:g} s for {what}; {describe()}")
        time.sleep(0.01)
    return result
