"""Starts workers where the user asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qvla_offline.workers.local import local_workers
from qvla_offline.workers.on_ray import ray_workers
from qvla_offline.workers.worker import Worker
from qvla_ros.errors import QvlaError


@contextmanager
def open_workers(count: int, ray: str | None = None) -> Iterator[list[Worker]]:
    """Starts `count` processes, which end with the block.

    ray: None for processes of this machine; "auto" for the Ray cluster that this machine belongs
    to, "local" for one of its own, or a cluster's address. The cluster's machines need this
    package, and the same paths.
    """
    if count < 1:
        raise QvlaError("workers", count, "1 or more", "ask for more with --workers")
    opened = local_workers(count) if ray is None else ray_workers(count, ray)
    with opened as workers:
        yield workers
