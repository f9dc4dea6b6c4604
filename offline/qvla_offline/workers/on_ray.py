"""Workers that are actors of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qvla_offline.workers.worker import Worker, lost
from qvla_ros.errors import QvlaError

LOCAL = "local"


@contextmanager
def ray_workers(count: int, address: str) -> Iterator[list[Worker]]:
    """Connects to the cluster at `address` and starts `count` actors of one core each.

    They end with the block. QvlaError if Ray is not installed or there is no such cluster.
    """
    ray = _import_ray()
    try:
        local = {"num_cpus": count, "include_dashboard": False} if address == LOCAL else {}
        ray.init(address, log_to_driver=False, logging_level="error", **local)
    except (ConnectionError, ValueError) as error:
        fix = "start one with `ray start --head`, or leave out --ray to use processes here"
        raise QvlaError("ray", f"{address}: {error}", "a running cluster", fix) from error
    try:
        actor = ray.remote(num_cpus=1)(_Actor)
        yield [_RayWorker(ray, actor.remote()) for _ in range(count)]
    finally:
        ray.shutdown()


class _Actor:
    """Lives in the process of a cluster's machine."""

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return function(*arguments)


class _RayWorker:
    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self._ray.get(self._actor.call.remote(function, arguments))
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise lost("a Ray actor", error) from None


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        fix = "pip install ray, or leave out --ray to use processes of this machine"
        raise QvlaError("ray", error, "Ray, for --ray", fix) from error
    return ray
