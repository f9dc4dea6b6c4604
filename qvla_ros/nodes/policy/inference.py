"""Runs the policy on a thread of its own: the newest observation in, a chunk out.

The chunk is un-normalised; how long it took comes with it.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Mapping

from qvla_ros.control.stop_reason import StopReason
from qvla_ros.errors import QvlaError
from qvla_ros.nodes.worker import LatestOnlyWorker
from qvla_ros.observation import Observation
from qvla_ros.policy import Policy, Prediction

WINDOW = 200  # inferences that percentiles are taken from

# observation, prediction and stage -> milliseconds, up to and without "total"
Deliver = Callable[[Observation, Prediction, Mapping[str, float]], None]


class Inference:
    """`submit` an observation from any thread.

    `deliver` or, once and for all, `fail(reason, stop)` runs on its own.

    After a failure, `abandon` or `stop` nothing is delivered any more: what comes late is not to be
    acted on. limit_s: an inference that takes longer has failed, which its end or `watch` notices.
    now_ns: the observations' clock.
    """

    def __init__(
        self,
        policy: Policy,
        deliver: Deliver,
        fail: Callable[[str, StopReason], None],
        limit_s: float,
        now_ns: Callable[[], int],
    ) -> None:
        self._policy = policy
        self._deliver = deliver
        self._fail = fail
        self._limit_s = limit_s
        self._now_ns = now_ns
        self._inference_ms: deque[float] = deque(maxlen=WINDOW)
        self._abandoned = False
        self.stage_ms: Mapping[str, float] = {}
        self._worker: LatestOnlyWorker[tuple[Observation, int]] = LatestOnlyWorker(
            self._infer, "inference"
        )

    @property
    def dropped(self) -> int:
        """Observations that a newer one replaced before the policy took them."""
        return self._worker.dropped

    def inference_ms(self) -> tuple[float, ...]:
        """How long the engine took the last times, newest last."""
        return tuple(self._inference_ms.copy())

    def submit(self, observation: Observation) -> None:
        """Have the policy act on this next, instead of what still waits."""
        if not self._abandoned:
            self._worker.submit((observation, self._now_ns()))

    def busy_s(self) -> float:
        """For how long the present inference has been running, steady clock.

        0 when idle or abandoned.
        """
        return 0.0 if self._abandoned else self._worker.busy_s()

    def watch(self) -> None:
        """Gives up the present inference if it has taken too long.

        `fail` then runs on the caller's thread.
        """
        if self.busy_s() > self._limit_s:
            self.abandon()
            reason = f"inference has taken more than inference_timeout_s = {self._limit_s:g} s."
            self._fail(reason, StopReason.late_inference)

    def abandon(self) -> None:
        """Deliver nothing from here on, without waiting for what is running."""
        self._abandoned = True

    def stop(self, timeout_s: float) -> bool:
        """Abandon it and end the thread. False if the engine is still in use after `timeout_s`."""
        self.abandon()
        return self._worker.stop(timeout_s)

    def _infer(self, job: tuple[Observation, int]) -> None:
        observation, arrival_ns = job
        if self._abandoned:
            return
        waited_ms = (self._now_ns() - arrival_ns) * 1e-6
        try:
            prediction = self._policy.infer(observation)
            self.watch()  # those who watch now and then may have missed it
            if self._abandoned:
                return
            received_ms = (arrival_ns - observation.stamp_ns) * 1e-6
            self.stage_ms = {"receive": received_ms, "wait": waited_ms, **prediction.latency_ms}
            self._inference_ms.append(prediction.latency_ms["inference"])
            self._deliver(observation, prediction, self.stage_ms)
        except Exception as error:
            text = str(error) if isinstance(error, QvlaError) else traceback.format_exc()
            if not self._abandoned:
                self.abandon()
                self._fail(f"inference failed: {text}", StopReason.inference_error)
