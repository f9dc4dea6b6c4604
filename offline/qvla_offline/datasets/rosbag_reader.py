"""Reads observations from a ROS 2 bag (mcap or sqlite).

They are put together by stamp with the rule of the policy node.
The bag is read twice: once for stamps, once for the messages that were chosen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qvla_offline.datasets.observed import Needs, Observed, decoded_image, evenly
from qvla_ros.messages.image import rgb_pixels
from qvla_ros.messages.kinds import IMAGE
from qvla_ros.recording.bag import open_bag
from qvla_ros.recording.moments import synchronized_moments
from qvla_ros.recording.observations import read_observations
from qvla_ros.recording.source import BagSource, ObservationNames, find_topics


def read_rosbag(
    path: Path, source: BagSource, needs: Needs, max_samples: int | None
) -> list[Observed]:
    """Reads `max_samples` observations (None: all), spread evenly over the recording.

    They are spread over the moments at which the policy would have had an observation. Images are
    as published: the policy turns them as it does on the robot. QvlaError: a missing topic (it
    lists those of the bag), a topic of another type, streams that never come within `max_spread_s`,
    a joint or pose that is not what the policy reads.
    """
    inputs = ObservationNames(needs.cameras, needs.proprioception, needs.pose_frame)
    with open_bag(path) as bag:
        topics = find_topics(bag.types, path, source, inputs)
        moments = synchronized_moments(bag, source, topics)
        chosen = [moments[index] for index in evenly(len(moments), max_samples)]
        return [
            Observed(
                where=f"{path}, {found.stamp_ns * 1e-9:.3f} s",
                text=found.instruction,
                images=tuple(found.images[camera] for camera in needs.cameras),
                rotate_180=needs.rotate_180,
                proprioception=found.proprioception,
            )
            for found in read_observations(bag, source, inputs, topics, chosen, _pixels)
        ]


def _pixels(camera: str, message: Any, kind: str, where: str) -> np.ndarray:
    """Pixels of an image of any size; calibration turns them into what the policy reads."""
    if kind == IMAGE:
        return rgb_pixels(message, where, message.height, message.width)
    fix = "name a topic that carries colour images as JPEG or PNG files"
    return decoded_image(bytes(message.data), f"image on {where}, format {message.format!r}", fix)
