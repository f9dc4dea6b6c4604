"""Subscribes to the topics of observations, whatever their types.

It has the threads for slow work, and finds which samples belong together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from rclpy.node import Node

from qvla_ros.errors import QvlaError
from qvla_ros.nodes import qos
from qvla_ros.nodes.policy.inputs.handover import Handover
from qvla_ros.nodes.policy.inputs.stream_statistics import StreamHealth, StreamStatistics
from qvla_ros.nodes.worker import LatestOnlyWorker
from qvla_ros.observation import MAX_LEAD_S, Samples, Synchronizer, Waiting

_STOP_S = 1.0  # a decode or a transform takes milliseconds


class Streams:
    """Collects the samples of all inputs into complete observations.

    Made, then subscribed with, then `join`ed. `complete(samples)` gets each new, complete set.

    A topic whose newest message was refused counts as missing: nothing is complete meanwhile. On
    the executor's thread, except for `refusal` and `health`, which any thread may call, and `post`,
    which is for the threads of slow work.
    """

    def __init__(self, node: Node, complete: Callable[[Samples], None]) -> None:
        self._node = node
        self._complete = complete
        self._refused: dict[str, str] = {}
        self._subscriptions: list[Any] = []
        self._workers: list[LatestOnlyWorker[Any]] = []
        self._handover = Handover(node)
        self._synchronizer = Synchronizer((), 0.0, 0.0)
        self._statistics = StreamStatistics((), time.monotonic())

    def subscribe(
        self, kind: Any, topic: str, callback: Callable[[Any], None], profile: Any = qos.SENSOR
    ) -> str:
        """The topic's full name, after remapping."""
        subscription = self._node.create_subscription(
            kind, topic, callback, **qos.subscribed(profile)
        )
        self._subscriptions.append(subscription)
        return subscription.topic_name

    def worker(self, work: Callable[[Any], None], name: str) -> LatestOnlyWorker[Any]:
        """A thread for slow work; it hands its results back through `post`."""
        self._workers.append(LatestOnlyWorker(work, name))
        return self._workers[-1]

    def post(self, topic: str, function: Callable[[], object]) -> None:
        """Have `function` run on the executor's thread, in place of what waits for this topic."""
        self._handover.post(topic, function)

    def join(
        self, topics: Iterable[str], max_stamp_spread_s: float, max_image_age_s: float
    ) -> None:
        """Makes sets of one sample of each of these topics from now on, by their stamps."""
        names = tuple(topics)
        # A message may overtake the simulated /clock, which says nothing against its stamp.
        use_sim_time = self._node.get_parameter("use_sim_time").value
        self._synchronizer = Synchronizer(
            names,
            max_stamp_spread_s,
            max_image_age_s,
            max_image_age_s if use_sim_time else MAX_LEAD_S,
        )
        self._statistics = StreamStatistics(names, time.monotonic())

    def put(self, topic: str, moment_ns: int, convert: Callable[[], Any]) -> tuple[Any, int] | None:
        """Adds what `convert` gives to the topic, which may complete a set.

        None if it raises a QvlaError: the topic is then refused.
        """
        try:
            value = convert()
        except QvlaError as error:
            self.refuse(topic, str(error))
            self._synchronizer.discard(topic)
            return None
        self.accept(topic)
        self._statistics.note(topic, moment_ns, time.monotonic())
        self._synchronizer.put(topic, moment_ns, value)
        self.advance()
        return value, moment_ns

    def refuse(self, topic: str, reason: str) -> None:
        """Marks a stream whose newest message cannot be used."""
        self._refused[topic] = reason

    def accept(self, topic: str) -> None:
        """Marks a stream whose newest message can be used."""
        self._refused.pop(topic, None)

    def refusal(self) -> str:
        """Why the newest message of some topic cannot be used, else empty. From any thread."""
        reasons = tuple(self._refused.values())  # copied at once: the executor's may change it
        return "; ".join(reasons)

    def advance(self) -> str:
        """Hand out a set if one is complete; why there can be none, or empty when all are fresh."""
        if refusal := self.refusal():
            return refusal
        samples = self._synchronizer.collect(self.now_ns())
        if isinstance(samples, Waiting):
            return samples.reason
        if isinstance(samples, Samples):
            self._complete(samples)
        return ""

    def raise_error(self) -> None:
        """Raises what went wrong on the threads for slow work since the last call."""
        self._handover.raise_error()

    def health(self) -> tuple[StreamHealth, ...]:
        """Rate and age of each topic that was joined. From any thread."""
        return self._statistics.health(self.now_ns(), time.monotonic())

    def destroy(self) -> None:
        """Ends all subscriptions and threads."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        for worker in self._workers:
            worker.stop(_STOP_S)
        self._workers.clear()
        self._handover.destroy()

    def now_ns(self) -> int:
        """Node time."""
        return self._node.get_clock().now().nanoseconds


def outcome(work: Callable[[], Any]) -> Callable[[], Any]:
    """Do `work` now; what is returned gives its result, or raises its error, when called."""
    try:
        value = work()
    except Exception as error:
        failure = error

        def fail() -> Any:
            raise failure

        return fail
    return lambda: value
