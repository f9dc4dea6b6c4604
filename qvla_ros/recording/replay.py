"""Runs a policy again on a bag, at the moments of the recorded chunks, and compares the actions.

The same bundle on the same backend gives the same actions to the last bit, if its graph alone
decides. A decoder that draws random numbers (diffusion, UniVLA) depends on the draws before, and a
recording rarely begins where the node did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvla_ros.bundle import Bundle
from qvla_ros.errors import QvlaError
from qvla_ros.messages.pixels import pixels_of
from qvla_ros.observation import Observation
from qvla_ros.policy import Policy
from qvla_ros.recording.bag import Bag
from qvla_ros.recording.moments import Moment, index_stamps, moment_of, synchronized_moments
from qvla_ros.recording.observations import read_observations
from qvla_ros.recording.source import BagSource, InputTopics, ObservationNames, find_topics
from qvla_ros.ros_graph import CHUNK_TYPE


@dataclass(frozen=True)
class RecordedChunk:
    """A qvla/ActionChunk of a bag.

    actions: float64 [K, A]. stamps_ns: input topic -> stamp of the sample that it used.
    """

    stamp_ns: int
    received_ns: int
    bundle_id: str
    instruction: str
    armed: bool
    names: tuple[str, ...]
    actions: NDArray[np.float64]
    stamps_ns: Mapping[str, int]
    latency_ms: Mapping[str, float]


@dataclass(frozen=True)
class Unmatched:
    """A recorded chunk that cannot be computed again, and why."""

    stamp_ns: int
    reason: str


@dataclass(frozen=True)
class ReplayPlan:
    """The topics and moments of a replay, each with the chunk that was recorded then, if any."""

    inputs: ObservationNames
    topics: InputTopics
    runs: list[tuple[Moment, RecordedChunk | None]]
    unmatched: list[Unmatched]


@dataclass(frozen=True)
class ReplayedAnswer:
    """The policy's actions now, float64 [K, A], its latencies, and the recorded chunk, if any."""

    stamp_ns: int
    actions: NDArray[np.float64]
    latency_ms: Mapping[str, float]
    recorded: RecordedChunk | None


@dataclass(frozen=True)
class Difference:
    """Absolute differences to the recorded actions, over all answers and steps.

    largest, mean: float64 [A], each column in its units.
    """

    largest: NDArray[np.float64]
    mean: NDArray[np.float64]


def find_chunk_topic(types: Mapping[str, str], asked: str | None) -> str | None:
    """The topic of the recorded chunks: `asked`, or the only one; None if the bag has none.

    QvlaError if `asked` has none, or if there are several.
    """
    found = [
        topic for topic, kind in types.items() if kind == CHUNK_TYPE and asked in (None, topic)
    ]
    if len(found) > 1 or (asked is not None and not found):
        present = [topic for topic, kind in types.items() if kind == CHUNK_TYPE]
        fix = "name one of them with --chunk_topic"
        raise QvlaError(
            "chunks in the bag", asked or f"{len(found)} topics", f"one of {present}", fix
        )
    return found[0] if found else None


def read_chunks(bag: Bag, topic: str) -> list[RecordedChunk]:
    """Reads all chunks on `topic` in order of arrival."""
    return [
        _chunk(bag.decode(message), message.received_ns)
        for message in bag.messages([topic], "chunks")
    ]


def plan_replay(
    bag: Bag, source: BagSource, bundle: Bundle, chunks: list[RecordedChunk] | None
) -> ReplayPlan:
    """Plans a run for every chunk whose samples the bag has.

    chunks: None: the runs are at the moments at which the node would have run.
    """
    inputs = observation_names(bundle)
    if chunks is None:
        topics = find_topics(bag.types, bag.path, source, inputs)
        return ReplayPlan(
            inputs,
            topics,
            [(moment, None) for moment in synchronized_moments(bag, source, topics)],
            [],
        )
    named = {topic for chunk in chunks for topic in chunk.stamps_ns}
    topics = find_topics(bag.types, bag.path, replace(source, instruction=""), inputs, named)
    plan = ReplayPlan(inputs, topics, [], [])
    index = index_stamps(bag, topics.stamped())
    for chunk in chunks:
        moment = moment_of(chunk.stamps_ns, chunk.received_ns, chunk.instruction, topics, index)
        if isinstance(moment, Moment):
            plan.runs.append((moment, chunk))
        else:
            plan.unmatched.append(Unmatched(chunk.stamp_ns, moment))
    return plan


def answers(
    bag: Bag, source: BagSource, policy: Policy, plan: ReplayPlan
) -> Iterator[ReplayedAnswer]:
    """Runs the policy at every moment of `plan` in turn; it is reset where the node was armed."""
    cameras = {camera.name: camera for camera in policy.bundle.cameras}

    def pixels(camera: str, message: Any, kind: str, where: str) -> NDArray[np.uint8]:
        spec = cameras[camera]
        return pixels_of(message, kind, where, spec.height, spec.width)

    policy.warm_up()  # as the node does
    moments = [moment for moment, _ in plan.runs]
    observations = read_observations(bag, source, plan.inputs, plan.topics, moments, pixels)
    armed = False
    for observation, (_, chunk) in zip(observations, plan.runs, strict=True):
        if chunk is not None and chunk.armed and not armed:
            policy.reset()
        armed = chunk is not None and chunk.armed
        yield _answer(policy, observation, chunk)


def observation_names(bundle: Bundle) -> ObservationNames:
    """The names of the cameras and numbers that the bundle's policy reads."""
    proprioception = () if bundle.proprioception is None else bundle.proprioception.names
    return ObservationNames(
        tuple(camera.name for camera in bundle.cameras), proprioception, bundle.actions.frame
    )


def difference(found: list[ReplayedAnswer]) -> Difference | None:
    """The difference of the answers to the recorded actions; None if none were recorded."""
    pairs = [
        (answer.actions, answer.recorded.actions) for answer in found if answer.recorded is not None
    ]
    if not pairs:
        return None
    apart = np.abs(np.stack([now for now, _ in pairs]) - np.stack([then for _, then in pairs]))
    return Difference(apart.max(axis=(0, 1)), apart.mean(axis=(0, 1)))


def _answer(
    policy: Policy, observation: Observation, chunk: RecordedChunk | None
) -> ReplayedAnswer:
    prediction = policy.infer(observation)
    names = policy.bundle.actions.names
    shape = prediction.actions.shape
    if chunk is not None and (chunk.names != names or chunk.actions.shape != shape):
        found = f"{list(chunk.actions.shape)} ({', '.join(chunk.names)})"
        expected = f"{list(shape)} ({', '.join(names)}), as bundle {policy.bundle.bundle_id} gives"
        fix = "replay with a bundle of the same robot and chunk length as the one that was recorded"
        raise QvlaError("actions of the recorded chunk", found, expected, fix)
    return ReplayedAnswer(observation.stamp_ns, prediction.actions, prediction.latency_ms, chunk)


def _chunk(message: Any, received_ns: int) -> RecordedChunk:
    return RecordedChunk(
        stamp_ns=_nanoseconds(message.header.stamp),
        received_ns=received_ns,
        bundle_id=message.bundle_id,
        instruction=message.instruction,
        armed=message.armed,
        names=tuple(message.names),
        actions=np.array(message.data, np.float64).reshape(message.horizon, len(message.names)),
        stamps_ns=dict(
            zip(message.input_topics, map(_nanoseconds, message.input_stamps), strict=True)
        ),
        latency_ms=dict(zip(message.latency_names, map(float, message.latency_ms), strict=True)),
    )


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
