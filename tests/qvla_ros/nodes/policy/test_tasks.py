"""Tasks over real DDS, as a task planner meets them: goals, feedback, cancel, service twins."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path as PathMessage
from qvla.action import ExecuteInstruction
from qvla.msg import PolicyStatus
from rclpy.action import ActionClient
from std_srvs.srv import Trigger

from qvla_ros.nodes import qos
from qvla_ros.nodes.policy.task_rules import Result
from tests.support.commanding import commanding

if TYPE_CHECKING:
    from conftest import Process, Robot

STREAM_PERIOD_S = 0.05
COMMANDING = commanding(linear_low=[-1.0, -1.0, 0.0], linear_high=[1.0, 1.0, 1.0], control_hz=20.0)


class Planner:
    """Sends tasks to the policy node of `robot`, which streams observations meanwhile."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self._client = ActionClient(robot.node, ExecuteInstruction, "/x/policy/execute_instruction")
        self.feedback: list[ExecuteInstruction.Feedback] = []
        self.commands: list[PoseStamped] = []
        self.paths: list[PathMessage] = []
        self.diagnostics: list[DiagnosticArray] = []
        subscribe = robot.node.create_subscription
        subscribe(PoseStamped, "/x/policy/command", self.commands.append, 100)
        subscribe(PathMessage, "/x/policy/predicted_path", self.paths.append, qos.COMMAND)
        subscribe(DiagnosticArray, "/diagnostics", self.diagnostics.append, 10)
        self._triggers = {
            name: robot.node.create_client(Trigger, f"/x/policy/{name}")
            for name in ("start", "cancel")
        }
        self._published_s = 0.0

    def stream(self) -> None:
        if time.monotonic() - self._published_s > STREAM_PERIOD_S:
            self._published_s = time.monotonic()
            self.robot.publish()
        self.robot.spin()

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        def step() -> Any:
            self.stream()
            return condition()

        return self.robot.wait(step, what)

    def stream_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > end, "time")

    def result_of(self, future: Any, what: str) -> Any:
        self.wait(future.done, what)
        return future.result()

    def arm(self) -> None:
        """As soon as the node has seen an observation."""
        self.wait(lambda: self.robot.arm(True).success, "armed")

    def ask(self, name: str) -> Trigger.Response:
        client = self._triggers[name]
        self.wait(client.service_is_ready, name)
        return self.result_of(client.call_async(Trigger.Request()), name)

    def send(self, instruction: str, max_duration_s: float = 600.0) -> Any:
        """The goal's handle, accepted or not."""
        self.wait(self._client.server_is_ready, "the action server")
        goal = ExecuteInstruction.Goal(instruction=instruction, max_duration_s=max_duration_s)
        self.feedback.clear()
        self.commands.clear()
        self.robot.chunks.clear()
        feedback = lambda message: self.feedback.append(message.feedback)  # noqa: E731
        return self.result_of(
            self._client.send_goal_async(goal, feedback_callback=feedback), "an answer to the goal"
        )

    def result(self, handle: Any) -> tuple[int, ExecuteInstruction.Result]:
        """The goal's status and result."""
        answer = self.result_of(handle.get_result_async(), "the result")
        return answer.status, answer.result

    def last_status(self) -> PolicyStatus:
        return self.robot.statuses[-1]


@pytest.fixture
def planner(robot: Robot) -> Planner:
    return Planner(robot)


@pytest.fixture
def policy(start: Callable, bundle_dir: Path, planner: Planner) -> Process:
    """A policy node in /x that commands poses."""
    return start("policy", {"bundle": str(bundle_dir), **COMMANDING}, "x")


def test_a_goal_moves_the_arm_until_it_is_canceled_or_its_time_is_up(
    policy: Process, planner: Planner
) -> None:
    planner.robot.wait_until_active()
    assert not planner.send("pick up the milk").accepted
    assert "disarmed. Fix: call ~/arm" in policy.stderr

    planner.arm()  # before there is any instruction, as arming is an act of its own
    planner.stream_for(0.3)
    assert planner.commands == []
    goal = planner.send("pick up the milk")
    assert goal.accepted
    planner.wait(lambda: planner.feedback and planner.feedback[-1].steps > 2, "feedback")
    assert 0.0 < planner.feedback[-1].remaining_s < 600.0
    assert planner.feedback[-1].state == PolicyStatus.RUNNING
    planner.wait(lambda: len(planner.commands) > 2, "commands")
    assert {chunk.instruction for chunk in planner.robot.chunks} == {"pick up the milk"}
    planner.wait(lambda: planner.paths and len(planner.paths[-1].poses) > 1, "a predicted path")
    assert planner.paths[-1].header.frame_id == "world"

    canceling = goal.cancel_goal_async()
    status, result = planner.result(goal)
    assert len(canceling.result().goals_canceling) == 1
    assert (status, result.termination_reason) == (GoalStatus.STATUS_CANCELED, Result.CANCELED)
    assert result.steps > 2
    assert result.duration_s > 0.0
    count = len(planner.commands)
    planner.wait(lambda: planner.last_status().stop_reason == "cancelled", "the stop in the status")
    assert not planner.last_status().armed
    planner.stream_for(0.5)
    assert len(planner.commands) == count  # the result came after the last command

    planner.arm()
    planner.stream_for(0.5)
    assert len(planner.commands) == count  # the task's instruction went with the task
    planner.robot.wait_for_reason("the last task is over")
    status, result = planner.result(planner.send("pick up the milk", 0.5))
    assert (status, result.termination_reason) == (GoalStatus.STATUS_SUCCEEDED, Result.DURATION)
    assert 0.5 <= result.duration_s < 30.0
    planner.wait(lambda: planner.last_status().stop_reason in ("finished", ""), "disarmed")
    names = {status.name for message in planner.diagnostics for status in message.status}
    wanted = ("policy", "input /x/ee_pose", "inference", "safety chain", "control loop", "GPU")
    assert names >= {f"x/policy: {name}" for name in wanted}


def test_services_and_the_topic_end_and_start_tasks_as_an_action_client_would(
    policy: Process, planner: Planner
) -> None:
    planner.robot.wait_until_active()
    planner.robot.tell("pick up the milk")
    planner.wait(lambda: planner.robot.chunks, "a chunk for the topic's instruction")
    refused = planner.ask("start")
    assert not refused.success
    assert "disarmed" in refused.message
    planner.arm()
    assert not planner.send("pick " * 300).accepted
    assert "at most 256 tokens. Fix: say it in fewer words" in policy.stderr
    assert planner.ask("start").success
    assert not planner.send("open the drawer").accepted
    assert "'pick up the milk' is being followed. Fix: cancel it first" in policy.stderr
    planner.wait(lambda: planner.commands, "commands")
    canceled = planner.ask("cancel")
    assert canceled.success
    assert "pick up the milk" in canceled.message
    planner.wait(lambda: planner.last_status().stop_reason == "cancelled", "the stop")

    planner.arm()
    goal = planner.send("open the drawer")
    planner.wait(lambda: planner.robot.chunks, "a chunk for the goal")
    planner.robot.tell("close the drawer")
    status, result = planner.result(goal)
    assert (status, result.termination_reason) == (GoalStatus.STATUS_ABORTED, Result.PREEMPTED)
    planner.robot.chunks.clear()
    planner.wait(lambda: planner.robot.chunks, "a chunk for the new instruction")
    assert {chunk.instruction for chunk in planner.robot.chunks} == {"close the drawer"}
    assert not planner.robot.chunks[-1].armed

    planner.arm()
    goal = planner.send("open the drawer")
    ending = goal.get_result_async()
    planner.feedback.clear()
    # the node has the request for the result
    planner.wait(lambda: len(planner.feedback) > 5, "feedback")
    policy.popen.send_signal(signal.SIGINT)
    answer = planner.result_of(ending, "the result")
    assert (answer.status, answer.result.termination_reason) == (
        GoalStatus.STATUS_ABORTED,
        Result.STOPPED,
    )
    assert answer.result.message.startswith("shutdown")
    assert policy.wait() == 0


def test_what_is_being_computed_for_an_old_instruction_is_dropped(
    start: Callable, bundle_dir: Path, tmp_path: Path, planner: Planner
) -> None:
    fault_file = tmp_path / "fault"
    given = {"bundle": str(bundle_dir), "engine_options.fault_file": str(fault_file)}
    start("policy", {**COMMANDING, **given}, "x")
    planner.robot.wait_until_active()
    planner.robot.tell("pick up the milk")
    planner.wait(lambda: planner.robot.chunks, "a chunk")
    slow = tmp_path / "slow"
    slow.write_text("2.0")  # what the next inference takes, seconds
    slow.rename(fault_file)
    planner.wait(lambda: not fault_file.exists(), "the slow inference to begin")
    time.sleep(0.1)
    planner.robot.spin()  # what was on its way
    planner.robot.chunks.clear()
    planner.robot.tell("open the drawer")
    changed_s = time.monotonic()
    planner.wait(lambda: planner.robot.chunks, "a chunk for the new instruction")
    # the slow inference was under way when the instruction changed
    assert time.monotonic() - changed_s > 0.5
    planner.stream_for(0.3)
    assert {chunk.instruction for chunk in planner.robot.chunks} == {"open the drawer"}


@pytest.mark.parametrize("pause_s", [0.0, 0.03])
def test_a_stopped_task_ends_as_stopped_however_soon_the_arm_is_armed_again(
    policy: Process, planner: Planner, pause_s: float
) -> None:
    planner.robot.wait_until_active()
    planner.arm()
    goal = planner.send("pick up the milk", 30.0)
    ending = goal.get_result_async()
    planner.wait(lambda: len(planner.commands) > 5 and planner.feedback, "commands")
    assert planner.robot.arm(False).success
    time.sleep(pause_s)
    planner.arm()
    answer = planner.result_of(ending, "the result")
    assert (answer.status, answer.result.termination_reason) == (
        GoalStatus.STATUS_ABORTED,
        Result.STOPPED,
    )
    assert planner.send("open the drawer", 30.0).accepted  # it is still armed
