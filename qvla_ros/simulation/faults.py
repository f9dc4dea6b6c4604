"""Injects faults into the sensors of a simulated robot at given times.

Pure; the bridge applies them.

A fault is written `KIND[:CAMERA]@START[+DURATION][=DELAY]`, in seconds of simulated time since the
episode began, for example `drop_camera:agentview@2.0+0.5`. Without a camera it concerns all of
them, without a duration it never ends.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qvla_ros.errors import QvlaError
from qvla_ros.simulation.libero import LiberoObservation
from qvla_ros.simulation.specification import CAMERA_NAMES

KINDS = {
    "drop_camera": "its frames are not published",
    "delay_camera": "its frames come DELAY seconds late, under the stamp of their capture",
    "freeze_camera": "it repeats the last frame before the fault, under new stamps",
    "wrong_size_image": "its frames have half their height",
    "nan_proprioception": "joints, fingers and end-effector position are not numbers",
    "kill": "the bridge dies as by SIGKILL",
}
# A sound policy answers none of these. A repeated frame it does answer: that looks like a still
# scene.
_UNANSWERABLE = {"drop_camera", "delay_camera", "wrong_size_image", "nan_proprioception"}
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_SYNTAX = re.compile(rf"([a-z_]+)(?::(\w+))?@{_NUMBER}(?:\+{_NUMBER})?(?:={_NUMBER})?")


@dataclass(frozen=True)
class Fault:
    """One fault, in simulated nanoseconds since the episode began.

    camera: None means all, or that the fault is not about cameras. end_ns: None means never.
    """

    kind: str
    camera: str | None
    start_ns: int
    end_ns: int | None
    delay_ns: int = 0

    def holds_at(self, time_ns: int) -> bool:
        return time_ns >= self.start_ns and (self.end_ns is None or time_ns < self.end_ns)

    @property
    def cameras(self) -> tuple[str, ...]:
        return CAMERA_NAMES if self.camera is None else (self.camera,)


@dataclass(frozen=True)
class Sensed:
    """An observation as the robot publishes it.

    image_ages_ns: how long ago a camera's frame was taken, where it is not new. faults: the kinds
    that changed it.
    """

    observation: LiberoObservation
    image_ages_ns: Mapping[str, int]
    faults: tuple[str, ...] = ()

    @property
    def answerable(self) -> bool:
        """Whether the policy should still answer under these faults."""
        return not _UNANSWERABLE & set(self.faults)


def parse_faults(texts: Iterable[str]) -> tuple[Fault, ...]:
    """Parses faults from their written form; empty texts are skipped. Else QvlaError."""
    return tuple(_parse(text.strip()) for text in texts if text.strip())


def _parse(text: str) -> Fault:
    def refused(expected: str) -> QvlaError:
        return QvlaError(
            "fault", text, expected, "for example drop_camera:agentview@2.0+0.5 or kill@3"
        )

    match = _SYNTAX.fullmatch(text)
    if match is None:
        raise refused("KIND[:CAMERA]@START[+DURATION][=DELAY], seconds")
    kind, camera, start, duration, delay = match.groups()
    if kind not in KINDS:
        raise refused(f"one of {', '.join(KINDS)}")
    is_about_cameras = kind not in ("nan_proprioception", "kill")
    if camera is not None and not is_about_cameras:
        raise refused(f"no camera: {kind} is not about one")
    if camera is not None and camera not in CAMERA_NAMES:
        raise refused(f"one of the cameras {', '.join(CAMERA_NAMES)}")
    if (delay is not None) != (kind == "delay_camera"):
        raise refused("=DELAY in seconds after delay_camera, and after nothing else")
    if duration is not None and (kind == "kill" or float(duration) == 0):
        raise refused("a duration above zero, and none after kill")
    start_ns = _nanoseconds(start)
    end_ns = None if duration is None else start_ns + _nanoseconds(duration)
    return Fault(kind, camera, start_ns, end_ns, 0 if delay is None else _nanoseconds(delay))


def _nanoseconds(seconds: str) -> int:
    return round(float(seconds) * 1e9)


class FaultInjector:
    """Changes the observations of one episode as `faults` ask; one object an episode.

    counts: kind -> number of observations that it changed.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = faults
        self._longest_delay_ns = max((fault.delay_ns for fault in faults), default=0)
        # Those drawn, oldest first.
        self._frames: deque[tuple[int, Mapping[str, np.ndarray]]] = deque()
        self._frozen: dict[Fault, Mapping[str, np.ndarray]] = {}
        self.counts: Counter[str] = Counter()

    def kills_at(self, time_ns: int) -> bool:
        """Whether the bridge is killed by this time since the episode began."""
        return any(fault.kind == "kill" and fault.holds_at(time_ns) for fault in self._faults)

    def sense(self, observation: LiberoObservation, time_ns: int) -> Sensed:
        """What is published for an `observation` made at `time_ns` since the episode began."""
        if not self._faults:
            return Sensed(observation, {})
        self._remember(time_ns, observation.images)
        images = dict(observation.images)
        ages_ns = dict[str, int]()
        active = [
            fault for fault in self._faults if fault.kind != "kill" and fault.holds_at(time_ns)
        ]
        for fault in active:
            if fault.kind == "nan_proprioception":
                observation = _without_numbers(observation)
            else:
                self._alter(fault, images, ages_ns, time_ns)
        touched = tuple(dict.fromkeys(fault.kind for fault in active))
        self.counts.update(touched)
        return Sensed(replace(observation, images=images), ages_ns, touched)

    def _alter(
        self, fault: Fault, images: dict[str, np.ndarray], ages_ns: dict[str, int], time_ns: int
    ) -> None:
        for camera in fault.cameras:
            if camera not in images:
                continue
            if fault.kind == "drop_camera":
                del images[camera]
            elif fault.kind == "wrong_size_image":
                images[camera] = images[camera][: len(images[camera]) // 2]
            elif fault.kind == "freeze_camera":
                images[camera] = self._before(fault)[camera]
            else:
                self._delay(camera, images, ages_ns, time_ns, fault.delay_ns)

    def _delay(
        self,
        camera: str,
        images: dict[str, np.ndarray],
        ages_ns: dict[str, int],
        time_ns: int,
        delay_ns: int,
    ) -> None:
        arrived = [
            (taken_ns, frames)
            for taken_ns, frames in self._frames
            if taken_ns <= time_ns - delay_ns
        ]
        if not arrived:
            del images[camera]
            return
        taken_ns, frames = arrived[-1]
        images[camera] = frames[camera]
        ages_ns[camera] = time_ns - taken_ns

    def _before(self, fault: Fault) -> Mapping[str, np.ndarray]:
        """The last frames before the fault; the first ones if it began with the episode."""
        if fault not in self._frozen:
            self._frozen[fault] = self._frames[-2 if len(self._frames) > 1 else -1][1]
        return self._frozen[fault]

    def _remember(self, time_ns: int, images: Mapping[str, np.ndarray]) -> None:
        self._frames.append((time_ns, images))
        while len(self._frames) > 2 and self._frames[1][0] <= time_ns - self._longest_delay_ns:
            self._frames.popleft()


def _without_numbers(observation: LiberoObservation) -> LiberoObservation:
    return replace(
        observation,
        eef_position_m=np.full(3, np.nan),
        joint_positions_rad=np.full(7, np.nan),
        gripper_positions_m=np.full(2, np.nan),
    )
