"""Turns chunks and measurements into standard commands, on a thread of its own.

What to command and when to stop is decided in qvla_ros.control; here it meets clocks, topics and
threads.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from std_msgs.msg import Bool

from qvla_ros.bundle import ActionSpec
from qvla_ros.control.decision import Decision
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.control.stamp_clock import StampClock
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.timeline import PlannedChunk
from qvla_ros.errors import QvlaError
from qvla_ros.nodes import qos
from qvla_ros.nodes.policy.command_setup import command_setup
from qvla_ros.nodes.policy.commands import Sources
from qvla_ros.nodes.policy.control_loop import ControlLoop
from qvla_ros.nodes.policy.display import PlanDisplay
from qvla_ros.nodes.policy.figures import NOTHING_COMMANDED, CommandFigures, Stop, TickLog
from qvla_ros.nodes.policy.grippers.gripper import GripperOutput, make_gripper
from qvla_ros.nodes.policy.outputs.publisher import CommandOutput
from qvla_ros.nodes.policy.snapshot import LoopHealth
from qvla_ros.parameters.policy import PolicyParameters

GOODBYE_S = 0.2  # for the stop command to arrive before its publisher goes
BRAKING_S = 5.0  # longest wait for an arm to be braked to rest before the control thread ends


@dataclass(frozen=True)
class _Running:
    """What there is from `start` to `finish`. heard: subscriptions that are asked for."""

    sources: Sources
    loop: ControlLoop
    heard: tuple[Any, ...]


class Commander:
    """The Commands of a node that has an output. Made at configure, which may raise QvlaError.

    earlier: what one before it has commanded, from which it counts on.
    """

    def __init__(
        self,
        node: Node,
        parameters: PolicyParameters,
        actions: ActionSpec,
        earlier: CommandFigures = NOTHING_COMMANDED,
    ) -> None:
        self._node = node
        self._setup = command_setup(parameters, actions)
        self._lock = threading.Lock()
        self._controller = self._setup.controller()
        self._controller.interventions.update(earlier.interventions)
        self._ready_topic = parameters.watchdogs.ready_topic
        commands = parameters.commands
        # May fail: before publishers.
        self._gripper: GripperOutput | None = make_gripper(node, commands, actions)
        self._output = CommandOutput(node, self._setup.form, commands.output_topic)
        form = self._setup.form
        self._display = PlanDisplay(
            node, self._setup.spec, form.frame, form.joints, actions.control_period_s
        )
        self._running: _Running | None = None
        self._ticks = TickLog()
        self._stamps = StampClock()
        self._measured_ns: int | None = None
        self._orders = 0  # to disarm
        self._orders_done = 0
        self._last_stop: Stop | None = None
        self._silent_reason: StopReason | None = None  # of a disarming that needed no stop
        self._detail = ""  # what was found, of the last stop
        self.error = ""
        self._commands_sent = earlier.commands_sent

    # Lifecycle.

    def start(self, sources: Sources) -> None:
        """Begins to tick, disarmed."""
        done = self._controller.interventions
        self._controller = self._setup.controller()
        self._controller.interventions.update(done)
        self.error = ""
        heard = tuple(self._listen())
        loop = ControlLoop(partial(self._tick, sources), self._setup.settings.period_s)
        self._running = _Running(sources, loop, heard)

    def _listen(self) -> Iterator[Any]:
        """Subscribes to what must say true."""
        create = self._node.create_subscription
        if self._setup.settings.deadman_timeout_s > 0.0:
            # Best effort hears reliable publishers too; what is lost on the way is silence, and
            # silence stops the arm.
            yield create(Bool, "~/enable", self._on_enable, **qos.subscribed(qos.SENSOR))
        if self._ready_topic:
            ready = create(Bool, self._ready_topic, self._on_ready, **qos.subscribed(qos.LATCHED))
            self._ready_topic = ready.topic_name
            yield ready

    def finish(self, reason: StopReason) -> None:
        """Brakes the arm if it was commanded, and ends the thread.

        Returns when the command is at rest. What the thread has not carried out by then, because it
        died or because braking takes longer than BRAKING_S, is done at once.
        """
        running = self._running
        if running is None:
            return
        self.disarm(reason)
        end_s = time.monotonic() + BRAKING_S
        while self.is_stopping() and running.loop.alive and time.monotonic() < end_s:
            time.sleep(0.5 * self._setup.settings.period_s)
        running.loop.stop()
        self._controller.stop_at_once()
        self._tick(running.sources)
        self._running = None
        for subscription in running.heard:
            self._node.destroy_subscription(subscription)
        self._output.wait_for_acknowledgement(GOODBYE_S)

    def destroy(self) -> None:
        """Destroys the publishers, after `finish`."""
        self._output.destroy()
        self._display.destroy()
        if self._gripper is not None:
            self._gripper.destroy()

    # What happens: from any thread.

    @property
    def armed(self) -> bool:
        return self._controller.armed

    def arm(self) -> None:
        """Commands may go out from the next chunk on.

        QvlaError says why not: deadman, no measurement, stale input.
        """
        assert self._running is not None
        refusal = self._running.sources.refusal()
        measured = self._running.sources.measured()
        if refusal:
            raise QvlaError("arming", refusal, "usable inputs", "correct the input, then arm again")
        with self._lock:
            state, stamp_ns = (None, None) if measured is None else measured
            self._controller.arm(state, self._now_ns(), stamp_ns)
            self._last_stop = None
            self._silent_reason = None
            self._detail = ""
            if self._gripper is not None:
                self._gripper.begin()

    def is_stopping(self) -> bool:
        """True until the arm has been braked to rest."""
        waits = self._orders != self._orders_done or self._controller.is_stopping
        return self._running is not None and waits

    def disarm(self, reason: StopReason, detail: str = "") -> None:
        """The next tick begins to brake the arm, if it was commanded. detail: what was found."""
        with self._lock:
            if self._controller.armed:
                self._detail = detail
            self._orders = self._orders + 1
            self._controller.disarm(reason, time.monotonic())

    def observe(self, stamp_ns: int) -> None:
        """A complete observation came; stamp_ns: of the oldest sample in it.

        One from the future, as far as that is let through, counts as new and no newer.
        """
        with self._lock:
            self._controller.feed_input(min(stamp_ns, self._now_ns()))

    def plan(self, chunk: PlannedChunk) -> int | None:
        """A new chunk takes over from where its time has come; see Controller.set_chunk."""
        with self._lock:
            return self._controller.set_chunk(chunk, self._now_ns(), time.monotonic())

    def flush(self) -> None:
        """Forgets what was planned, and what is being computed from earlier observations."""
        with self._lock:
            self._controller.flush(self._now_ns())

    def poll(self) -> None:
        """Notes that the executor's thread is at work, and publishes the plan from where the arm is
        if any display listens.
        """
        with self._lock:
            self._controller.feed_life(time.monotonic())
        self._watch_ready()
        running = self._running
        if running is None or not self._display.wanted:
            return
        measured = running.sources.measured()
        if measured is not None:
            self._display.show(measured[0], self.plan_ahead()[1])

    def _watch_ready(self) -> None:
        """What was said last is no longer so once nobody is there who says it."""
        topic = self._ready_topic
        if self._running is None or not topic or self._node.count_publishers(topic) > 0:
            return
        with self._lock:
            if self._controller.armed:
                self._detail = f"no publisher on {topic} any more"
            self._controller.feed_ready(False, time.monotonic())

    # What it is like: from any thread.

    def health(self) -> LoopHealth | None:
        """How punctual the control thread is; None while inactive."""
        running = self._running
        return None if running is None else running.loop.health()

    def figures(self) -> CommandFigures:
        """What was commanded since the node was configured."""
        with self._lock:
            stop = self._last_stop
            reason = self._silent_reason if stop is None else stop.reason
            interventions = dict(self._controller.interventions)
            detail = "" if reason is None else self._detail
            return CommandFigures(self._commands_sent, interventions, stop, reason, detail)

    def plan_ahead(self) -> tuple[float, NDArray[np.float64]]:
        """How long the plan goes on, s, and its actions in force and to come, [m, A]."""
        now_ns = self._now_ns()
        with self._lock:
            timeline = self._controller.plan.timeline
            return timeline.remaining_s(now_ns), timeline.upcoming(now_ns)

    # The control thread.

    def _tick(self, sources: Sources) -> None:
        try:
            self._step(*self._sense(sources))
        except Exception:
            self.error = f"the control thread failed: {traceback.format_exc()}"
            # Whatever went wrong: the arm must be stopped before anything else.
            with suppress(Exception):
                self.disarm(StopReason.internal_error)
                self._step(None, None, "", 0.0)

    def _sense(self, sources: Sources) -> tuple[Setpoint | None, int | None, str, float]:
        """What is measured if that is new, the stamp of that, what is refused, and for how long the
        inference has been running, s.
        """
        newest = sources.measured()
        stamp_ns = None if newest is None else newest[1]
        measured = None if newest is None or stamp_ns == self._measured_ns else newest[0]
        self._measured_ns = stamp_ns
        return measured, stamp_ns, sources.refusal(), sources.busy_s()

    def _step(
        self, measured: Setpoint | None, measured_ns: int | None, refusal: str, busy_s: float
    ) -> None:
        with self._lock:
            steady_s = time.monotonic()
            now_ns = self._now_ns()
            stamp_ns = self._stamps.stamp_ns(steady_s, now_ns, time.monotonic())
            if refusal and self._controller.armed:
                self._detail = refusal
                self._controller.disarm(StopReason.bad_input)
            decision = self._controller.tick(now_ns, steady_s, measured, busy_s, measured_ns)
            orders = self._orders
            if decision.stop is None and not self._controller.armed:
                self._silent_reason = self._controller.reason
        sent_ns = now_ns if self._setup.settings.use_sim_time else stamp_ns
        self._send(decision, sent_ns)
        if decision.stop is not None and decision.passed_s is not None:
            stop = self._ticks.stop(decision.stop, decision.passed_s, sent_ns)
            with self._lock:
                if not self._controller.armed:  # again, already: then the stop is no news
                    self._last_stop = stop
        self._ticks.note(steady_s)
        self._orders_done = orders

    def _send(self, decision: Decision, stamp_ns: int) -> None:
        if decision.motion is None:
            return
        self._output.send(decision, stamp_ns)
        opening = decision.motion.setpoint.gripper
        if self._gripper is not None and opening is not None:
            self._gripper.send(float(opening))
        self._commands_sent += 1

    def _on_enable(self, message: Bool) -> None:
        with self._lock:
            self._controller.feed_deadman(message.data, time.monotonic())

    def _on_ready(self, message: Bool) -> None:
        with self._lock:
            self._controller.feed_ready(message.data, time.monotonic())

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds
