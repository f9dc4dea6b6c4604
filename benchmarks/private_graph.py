"""The surroundings of a measurement with nodes: a ROS graph of its own, and a bundle to run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qvla_offline.export.bundle import export_bundle
from qvla_ros.evaluation.processes import private_ros_environment
from qvla_ros.resources import share_path


@dataclass(frozen=True)
class PrivateGraph:
    """A ROS graph that only this process and its children are in.

    bundle: the directory of the bundle to run. environment: for the children. scratch: a folder
    that is removed at the end.
    """

    bundle: Path
    environment: dict[str, str]
    scratch: Path

    @property
    def domain_id(self) -> int:
        """The ROS domain of the graph, for rclpy.init."""
        return int(self.environment["ROS_DOMAIN_ID"])


@contextmanager
def private_graph(bundle: str | None) -> Iterator[PrivateGraph]:
    """Takes this process into a ROS graph of its own until the block ends.

    bundle: a directory; None exports the bundled policy in float16.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        private_ros_environment(Path(folder)) as environment,
    ):
        os.environ.update(environment)
        scratch = Path(folder)
        directory = (
            export_bundle(share_path("reference_policy"), None, scratch / "bundle")
            if bundle is None
            else Path(bundle)
        )
        yield PrivateGraph(directory, environment, scratch)
