"""/diagnostics of the policy node: its snapshot as diagnostic_msgs statuses, once a second.

A single slow step is a warning, a lasting delay an error, as in Autoware's perception nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from qvla.msg import PolicyStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from qvla_ros.nodes import qos
from qvla_ros.nodes.policy.inputs.stream_statistics import StreamHealth
from qvla_ros.nodes.policy.jetson_sensors import jetson_sensors
from qvla_ros.nodes.policy.snapshot import LoopHealth, Snapshot
from qvla_ros.statistics import percentiles

PERIOD_S = 1.0
SUSTAINED_MISSES = 3  # chunks in a row that came too late
SUSTAINED_PERIOD = 1.5  # of the asked one: a median above this is no hiccup

OK = DiagnosticStatus.OK
WARN = DiagnosticStatus.WARN
ERROR = DiagnosticStatus.ERROR
_STATES = {
    PolicyStatus.WAITING: (WARN, "waiting"),
    PolicyStatus.RUNNING: (OK, "running"),
    PolicyStatus.FAULT: (ERROR, "fault"),
    PolicyStatus.INACTIVE: (OK, "inactive"),
}


def statuses(
    now: Snapshot, before: Snapshot | None, max_image_age_s: float, sensors: Mapping[str, str]
) -> list[DiagnosticStatus]:
    """A snapshot in diagnostic terms; names are without the node's.

    before: the snapshot of the last report, None for the first: what grew since is news, what grew
    earlier is not. sensors: readings of the machine, empty if there are none.
    """
    report = [
        _policy(now),
        *(_input(stream, max_image_age_s) for stream in now.streams),
        _inference(now, before),
    ]
    report.append(_guards(now, before))
    if now.loop is not None:
        report.append(_loop(now.loop, None if before is None else before.loop))
    message = "as the kernel reports it" if sensors else "unmeasured: no Jetson sensors under /sys"
    return [*report, _status("GPU", OK, message, sensors)]


def _policy(now: Snapshot) -> DiagnosticStatus:
    level, state = _STATES[now.state]
    message = (
        f"{state}: {now.reason}"
        if now.reason
        else f"{state}, {'armed' if now.armed else 'disarmed'}"
    )
    if now.stop_reason and not now.armed and level == OK:
        level = WARN
        message = f"{message}; commands ended: {now.stop_reason}"
    values = {
        "armed": now.armed,
        "commands ended by": now.stop_reason,
        "bundle": now.bundle_id,
        "engine": now.engine,
        "backend": now.backend,
        "chunks published": now.chunks_published,
        "observations dropped": now.observations_dropped,
        "commands sent": now.commands_sent,
        "plan goes on for (s)": f"{now.remaining_s:.3f}",
    }
    return _status("policy", level, message, values)


def _input(stream: StreamHealth, max_age_s: float) -> DiagnosticStatus:
    fresh = -max_age_s <= stream.age_s <= max_age_s
    message = "fresh" if fresh else f"no usable message for more than {max_age_s:g} s"
    if stream.age_s < -max_age_s:
        message = (
            f"stamped {-stream.age_s:.1f} s in the future: check use_sim_time and "
            "the clocks of both machines"
        )
    values = {"rate (Hz)": f"{stream.rate_hz:.1f}", "age (s)": f"{stream.age_s:.3f}"}
    return _status(f"input {stream.topic}", OK if fresh else ERROR, message, values)


def _inference(now: Snapshot, before: Snapshot | None) -> DiagnosticStatus:
    p50_ms, p95_ms, p99_ms = percentiles(now.inference_ms, (50, 95, 99))
    row = now.consecutive_deadline_misses
    new = _growth(now, before, lambda snapshot: snapshot.deadline_misses)
    if row >= SUSTAINED_MISSES:
        level = ERROR
        message = f"the last {row} chunks came too late to be acted on"
    elif row or new:
        level = WARN
        message = f"{max(row, new)} chunks came too late to be acted on"
    else:
        level = OK
        message = "in time" if now.inference_ms else "none yet"
    values = {
        "last (ms)": f"{now.inference_ms[-1]:.2f}" if now.inference_ms else "",
        "p50 (ms)": f"{p50_ms:.2f}",
        "p95 (ms)": f"{p95_ms:.2f}",
        "p99 (ms)": f"{p99_ms:.2f}",
        "deadline misses": now.deadline_misses,
        "deadline misses in a row": row,
        **{f"stage {name} (ms)": f"{value:.2f}" for name, value in now.stage_ms.items()},
    }
    return _status("inference", level, message, values)


def _guards(now: Snapshot, before: Snapshot | None) -> DiagnosticStatus:
    new = _growth(now, before, lambda snapshot: sum(snapshot.interventions.values()))
    message = (
        f"{new} interventions since the last report"
        if new
        else "no intervention since the last report"
    )
    return _status("safety chain", WARN if new else OK, message, now.interventions)


def _loop(now: LoopHealth, before: LoopHealth | None) -> DiagnosticStatus:
    level = OK
    message = "on time"
    skipped = now.overruns - (0 if before is None else before.overruns)
    if now.p50_ms > SUSTAINED_PERIOD * now.asked_ms:
        level = ERROR
        message = f"half of the periods are longer than {now.p50_ms:.1f} ms"
    elif skipped > 0:
        level = WARN
        message = f"{skipped} deadlines skipped since the last report"
    values = {
        "asked (ms)": f"{now.asked_ms:.2f}",
        "p50 (ms)": f"{now.p50_ms:.2f}",
        "p99 (ms)": f"{now.p99_ms:.2f}",
        "max (ms)": f"{now.max_ms:.2f}",
        "ticks": now.ticks,
        "deadlines skipped": now.overruns,
    }
    return _status("control loop", level, message, values)


def _growth(now: Snapshot, before: Snapshot | None, count: Callable[[Snapshot], int]) -> int:
    """How much a counter grew; counters begin again with an activation."""
    return max(0, count(now) - (0 if before is None else count(before)))


def _status(name: str, level: Any, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(name=name, level=level, message=message, values=pairs)


class DiagnosticsPublisher:
    """Publishes every PERIOD_S, whatever the node's state.

    `snapshot` is called on the executor's thread.
    """

    def __init__(
        self, node: Node, snapshot: Callable[[], Snapshot], max_image_age_s: float
    ) -> None:
        self._node = node
        self._snapshot = snapshot
        self._max_image_age_s = max_image_age_s
        self._before: Snapshot | None = None
        # Absolute, as everywhere in ROS: one topic collects the diagnostics of a whole robot.
        self._publisher = node.create_publisher(
            DiagnosticArray, "/diagnostics", qos.COMMAND, event_callbacks=qos.NO_PUBLISHER_EVENTS
        )
        node.create_timer(PERIOD_S, self._on_tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_tick(self) -> None:
        now = self._snapshot()
        message = DiagnosticArray(
            status=statuses(now, self._before, self._max_image_age_s, jetson_sensors())
        )
        name = self._node.get_fully_qualified_name().lstrip("/")
        for status in message.status:
            status.name, status.hardware_id = f"{name}: {status.name}", name
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._before = now
        self._publisher.publish(message)
