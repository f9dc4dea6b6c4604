"""The policy node: camera images, joint states and an instruction in, action chunks out. A lifecycle node.

configure verifies the bundle, loads the engine and warms it up; activate subscribes and starts; deactivate disarms and
stops. Inference runs on one worker thread that always takes the newest observation. While something is missing, stale
or wrong, no chunk is published and `~/status` says what. Run it with
`python -m qvla_ros.nodes.policy --ros-args -p bundle:=DIR -r __ns:=/arm`.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from typing import Any

from qvla.msg import ActionChunk, PolicyStatus
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool

from qvla_ros.engines import BACKENDS
from qvla_ros.engines.fake import FakeEngine
from qvla_ros.errors import QvlaError
from qvla_ros.nodes import qos
from qvla_ros.nodes.chunk_message import chunk_message, set_latencies
from qvla_ros.nodes.inputs import ObservationInputs
from qvla_ros.nodes.parameters import ParameterSpec, declare_parameters, seconds
from qvla_ros.nodes.process import Interrupted, ignore_signals, run_node, spin
from qvla_ros.nodes.worker import LatestOnlyWorker
from qvla_ros.observation import Observation
from qvla_ros.policy import Policy, load_policy

TICK_S = 0.1  # how often inputs and the inference deadline are looked at
STATUS_PERIOD_S = 1.0
GOODBYE_S = 0.5

PARAMETERS = (
    ParameterSpec("bundle", "", "directory of the policy bundle"),
    ParameterSpec("backend", "onnxruntime", "what runs the graph; zero, sine and replay are fakes", choices=BACKENDS),
    ParameterSpec("engine_options", "{}", 'options of the backend, a JSON object such as {"threads": 2}'),
    seconds("max_image_age_s", 1.0, "oldest sample that is acted on, node clock", minimum=1e-3),
    seconds("max_stamp_spread_s", 0.05, "largest difference between the stamps of one observation"),
    seconds("inference_timeout_s", 5.0, "an inference that takes longer is a fault", minimum=1e-3),
    ParameterSpec("autostart", True, "configure and activate at the start, without a lifecycle manager"),
)


class PolicyNode(LifecycleNode):
    """See the module. `startup_error` holds what the last configure or activate failed with."""

    def __init__(self, cli_args: list[str] | None = None) -> None:
        super().__init__("policy", cli_args=cli_args)
        self.settings = declare_parameters(self, PARAMETERS)
        self.startup_error: Exception | None = None
        self._policy: Policy | None = None
        self._inputs: ObservationInputs | None = None
        self._worker: LatestOnlyWorker[tuple[Observation, int]] | None = None
        self._chunks: Any = None
        self._armed, self._fault, self._reason = False, "", ""
        self._published, self._last_inference_ms, self._dropped = 0, 0.0, 0
        self._last_observation_s = self._last_status_s = float("-inf")
        self._last_status: tuple[Any, ...] = ()
        self._last_warning = ""
        self._status = self.create_publisher(PolicyStatus, "~/status", qos.LATCHED)
        self.create_service(SetBool, "~/arm", self._on_arm)
        # Not on ROS time: with use_sim_time and no /clock the node must still say what it waits for.
        self.create_timer(TICK_S, self._on_tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # Lifecycle. rclpy swallows what a transition raises, so each one logs it and returns ERROR itself.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition(self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        return self._transition(self._activate) if result == TransitionCallbackReturn.SUCCESS else result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._transition(self._stop)
        return super().on_deactivate(state) if result == TransitionCallbackReturn.SUCCESS else result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition(self._release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition(self._release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition(self._release)

    def _transition(self, action: Any) -> TransitionCallbackReturn:
        try:
            action()
        except QvlaError as error:
            self.startup_error = error
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.ERROR
        except Exception as error:
            self.startup_error = error
            self.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        self._publish_status()
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        if not self.settings["bundle"]:
            raise QvlaError("parameter bundle", "nothing", "the directory of a bundle", "-p bundle:=DIR")
        started_s = time.monotonic()
        options = _engine_options(self.settings["engine_options"])
        self._policy = load_policy(self.settings["bundle"], self.settings["backend"], **options)
        if not isinstance(self._policy.engine, FakeEngine):
            self._policy.warm_up()
        if self._chunks is None:
            self._chunks = self.create_lifecycle_publisher(
                ActionChunk, "~/action_chunk", qos.COMMAND, qos_overriding_options=qos.overridable()
            )
        bundle = self._policy.bundle
        self.get_logger().info(
            f"bundle {bundle.bundle_id} ({bundle.directory}), engine {self._policy.engine.name}, "
            f"ready after {time.monotonic() - started_s:.1f} s"
        )

    def _activate(self) -> None:
        assert self._policy is not None
        self._fault = ""
        self._worker = LatestOnlyWorker(self._infer, "inference")
        self._inputs = ObservationInputs(
            self,
            self._policy.bundle,
            self.settings["max_stamp_spread_s"],
            self.settings["max_image_age_s"],
            self._on_observation,
        )
        self._reason = self._inputs.poll()
        self.get_logger().info("active and disarmed: chunks are marked armed after ~/arm is called with true")

    def _stop(self) -> None:
        self._armed = False
        if self._inputs is not None:
            self._inputs.destroy()
            self._inputs = None
        if self._worker is not None:
            if not self._worker.stop(self.settings["inference_timeout_s"]):  # it stays: the engine is in use
                fix = "restart the node; raise inference_timeout_s if the engine is slow"
                raise QvlaError("inference", "still running", "an end within inference_timeout_s", fix)
            self._dropped += self._worker.dropped
            self._worker = None

    def _release(self) -> None:
        self._stop()
        if self._policy is not None:
            policy, self._policy = self._policy, None
            policy.close()
        if self._chunks is not None:
            self.destroy_lifecycle_publisher(self._chunks)
            self._chunks = None

    # Inference: the first on the executor's thread, the others on the worker's.

    def _on_observation(self, observation: Observation) -> None:
        self._last_observation_s = time.monotonic()
        if self._worker is not None and not self._fault:
            self._worker.submit((observation, self._now_ns()))
        if self._reason:
            self._reason = ""
            self._publish_status()

    def _infer(self, job: tuple[Observation, int]) -> None:
        observation, arrival_ns = job
        policy = self._policy
        if policy is None or self._inputs is None or self._fault:
            return
        wait_ms = (self._now_ns() - arrival_ns) * 1e-6
        try:
            prediction = policy.infer(observation)
            message = chunk_message(policy.bundle, prediction.actions, observation, self._armed)
            if self._inputs is None or self._fault:  # deactivated or timed out meanwhile: too late to act on
                return
            self._last_inference_ms = prediction.latency_ms["inference"]
            receive_ms = (arrival_ns - observation.stamp_ns) * 1e-6
            total_ms = (self._now_ns() - observation.stamp_ns) * 1e-6
            latencies = {"receive": receive_ms, "wait": wait_ms, **prediction.latency_ms, "total": total_ms}
            set_latencies(message, latencies)
            self._chunks.publish(message)
            self._published += 1
        except Exception as error:
            text = str(error) if isinstance(error, QvlaError) else traceback.format_exc()
            self._set_fault(f"inference failed: {text}")

    def _set_fault(self, reason: str) -> None:
        self._fault = f"{reason} Nothing is published until the node is deactivated and activated again."
        self._armed = False
        self.get_logger().error(self._fault)

    # Status and arming.

    def _on_tick(self) -> None:
        worker, timeout_s = self._worker, self.settings["inference_timeout_s"]
        if worker is not None and not self._fault and worker.busy_s() > timeout_s:
            self._set_fault(f"inference has taken more than inference_timeout_s = {timeout_s:g} s.")
        if self._inputs is not None:
            reason = self._inputs.poll()
            since_s = time.monotonic() - self._last_observation_s
            if not reason and since_s > self.settings["max_image_age_s"]:
                reason = f"no new observation for {self.settings['max_image_age_s']:g} s"
            self._reason = reason
        self._publish_status(only_news=True)

    def _state(self) -> tuple[int, str]:
        if self._inputs is None:
            return PolicyStatus.INACTIVE, "not active: call change_state, or start with autostart:=true"
        if self._fault:
            return PolicyStatus.FAULT, self._fault
        return (PolicyStatus.WAITING, self._reason) if self._reason else (PolicyStatus.RUNNING, "")

    def _publish_status(self, only_news: bool = False) -> None:
        state, reason = self._state()
        # A reason with a growing age in it is not news; another sentence is.
        news = (state, self._armed, reason.split(":")[0])
        now_s = time.monotonic()
        if only_news and news == self._last_status and now_s - self._last_status_s < STATUS_PERIOD_S:
            return
        if state == PolicyStatus.WAITING and news[2] != self._last_warning:
            self._last_warning = news[2]
            self.get_logger().warning(reason)
        self._last_status, self._last_status_s = news, now_s
        message = PolicyStatus(state=state, reason=reason, armed=self._armed, last_inference_ms=self._last_inference_ms)
        message.header.stamp = self.get_clock().now().to_msg()
        if self._policy is not None:
            message.bundle_id, message.engine = self._policy.bundle.bundle_id, self._policy.engine.name
        message.chunks_published = self._published
        message.observations_dropped = self._dropped + (0 if self._worker is None else self._worker.dropped)
        self._status.publish(message)

    def say_goodbye(self) -> None:
        """Stop, disarm, free the engine, and see to it that the last status reaches those who listen."""
        try:
            self._release()
        except QvlaError as error:
            self.get_logger().error(str(error))  # the engine is then left to the end of the process
        self._publish_status()
        self._status.wait_for_all_acked(Duration(seconds=GOODBYE_S))

    def _on_arm(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        state, reason = self._state()
        if request.data and state in (PolicyStatus.INACTIVE, PolicyStatus.FAULT):
            response.success, response.message = False, f"cannot arm: {reason}"
            return response
        if request.data and not self._armed and self._policy is not None:
            self._policy.reset()  # what it saw before is not part of what begins now
        self._armed = request.data
        response.success, response.message = True, "armed" if self._armed else "disarmed"
        self.get_logger().info(response.message)
        self._publish_status()
        return response

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds


def _engine_options(text: str) -> dict[str, Any]:
    fix = """-p engine_options:='{"threads": 2}'"""
    try:
        options = json.loads(text)
    except ValueError as error:
        raise QvlaError("parameter engine_options", f"{text!r} ({error})", "a JSON object", fix) from None
    if not isinstance(options, dict):
        raise QvlaError("parameter engine_options", repr(text), "a JSON object", fix)
    return options


def serve() -> int:
    """Run the node until a signal arrives. Exit code 0; 1 when it could not start for another reason than bad input."""
    node = PolicyNode()
    try:
        if node.settings["autostart"]:
            for trigger in (node.trigger_configure, node.trigger_activate):
                if trigger() != TransitionCallbackReturn.SUCCESS:
                    if isinstance(node.startup_error, QvlaError):
                        raise node.startup_error
                    return 1
        spin(node)
    except Interrupted as interruption:
        ignore_signals()
        node.get_logger().info(f"{interruption}: stopping")
        node.say_goodbye()
        return 0
    finally:
        node.destroy_node()


def main(args: list[str] | None = None) -> int:
    return run_node(serve, args)


if __name__ == "__main__":
    sys.exit(main())
