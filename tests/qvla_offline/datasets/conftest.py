"""The LeRobot dataset that the tests of the readers share."""

from tests.support.lerobot_recordings import dataset, demonstrations

__all__ = ["dataset", "demonstrations"]
