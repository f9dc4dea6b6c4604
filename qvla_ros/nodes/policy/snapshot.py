"""The state of a policy node at one moment, for its status, diagnostics and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qvla_ros.nodes.policy.inputs.stream_statistics import StreamHealth


@dataclass(frozen=True)
class LoopHealth:
    """The control loop's periods over the last seconds, milliseconds.

    overruns: deadlines skipped since the start.
    """

    ticks: int
    overruns: int
    asked_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state of the policy node at one moment.

    What has a default is unknown without a stop, a policy or an activation.

    state: one of PolicyStatus' constants; reason: why it is not running, or empty.

    stop_reason: why commands last ended (the name of a StopReason), empty since the arm was armed;
    stop_stamp_ns, stop_delay_s, stop_delay_ticks: as in PolicyStatus. inference_ms: the last
    inferences, newest last. deadline_misses: chunks that came so late that none of their actions
    was left, in all and in a row. interventions: stage of the safety chain -> how many commands it
    changed. upcoming: float64 [m, A], the actions that are still to come, un-normalised, every
    step_dt_s.
    """

    state: int
    reason: str
    armed: bool
    stop_reason: str
    stop_stamp_ns: int = 0
    stop_delay_s: float = 0.0
    stop_delay_ticks: int = 0
    bundle_id: str = ""
    engine: str = ""
    backend: str
    streams: tuple[StreamHealth, ...] = ()
    inference_ms: tuple[float, ...] = ()
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    deadline_misses: int
    consecutive_deadline_misses: int
    chunks_published: int
    observations_dropped: int
    commands_sent: int
    interventions: Mapping[str, int]
    loop: LoopHealth | None
    remaining_s: float
    step_dt_s: float = 0.0
    upcoming: NDArray[np.float64]
