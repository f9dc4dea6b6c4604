"""The LeRobot dataset that the tests of the readers share."""

from lerobot_recordings import dataset, demonstrations

__all__ = ["dataset", "demonstrations"]
