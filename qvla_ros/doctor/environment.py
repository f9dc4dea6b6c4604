"""Collects facts of the machine: Python, ROS, engines, GPU, shared memory. Imports no ROS."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from qvla_ros.engines.cuda import Gpu
from qvla_ros.engines.plan import FLAVOURS
from qvla_ros.engines.tensorrt import import_flavour
from qvla_ros.errors import QvlaError
from qvla_ros.evaluation.shared_memory import SHARED_MEMORY, Port, orphans, ports, user_name
from qvla_ros.ros_environment import (
    PROFILE_VARIABLES,
    environment_errors,
    installed_middlewares,
    profile_variable,
)
from qvla_ros.simulation.gl import gl_errors

DISTROS = ("humble", "jazzy", "kilted", "lyrical", "rolling")
REAL_TIME_PRIORITY = 40  # of SCHED_FIFO: above all that is not real time, below robots' control


@dataclass(frozen=True)
class Machine:
    """The facts of one machine.

    machine: the output of `uname -m`. ros_distro, rclpy: None where unknown. rmw: the middleware
    that the environment asks for. tensorrt: flavour -> version of those that import.
    compute_capability: of the first GPU, as "87"; if None, gpu_error gives the reason. profile,
    profile_text: the Fast DDS profile that the environment asks for, and its text, None if it
    cannot be read. shared_memory_bytes: size and free space of /dev/shm, None without it. orphans:
    number of shared memory segments of killed processes. may_be_real_time: whether this user may
    run at REAL_TIME_PRIORITY. user: who this is. ports: everybody's shared memory ports. errors:
    what is wrong with variables that ROS and the simulator read.
    """

    python: tuple[int, int, int]
    machine: str
    ros_distro: str | None
    rclpy: str | None
    rmw: str
    domain: str
    discovery: str
    onnxruntime: str | None
    providers: tuple[str, ...]
    tensorrt: Mapping[str, str]
    compute_capability: str | None
    gpu_error: str
    profile: str | None
    profile_text: str | None
    shared_memory_bytes: tuple[int, int] | None
    orphans: int
    may_be_real_time: bool
    user: str = ""
    ports: tuple[Port, ...] = ()
    errors: tuple[QvlaError, ...] = ()


def read_machine() -> Machine:
    """Collects the facts of this machine, as this process's environment variables set it."""
    ros_distro = os.environ.get("ROS_DISTRO") or next(
        (d for d in DISTROS if _version(f"ros-{d}-rclpy")), None
    )
    profile = os.environ.get(profile_variable(ros_distro)) or None
    capability, gpu_error = _gpu()
    onnxruntime, providers = _onnxruntime()
    return Machine(
        python=sys.version_info[:3],
        machine=platform.machine(),
        ros_distro=ros_distro,
        rclpy=_version("rclpy"),
        rmw=os.environ.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp",
        domain=os.environ.get("ROS_DOMAIN_ID") or "0",
        discovery=os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or "SUBNET",
        onnxruntime=onnxruntime,
        providers=providers,
        tensorrt=_tensorrt(),
        compute_capability=capability,
        gpu_error=gpu_error,
        profile=profile,
        profile_text=_text(profile),
        shared_memory_bytes=_space(SHARED_MEMORY),
        orphans=len(orphans()),
        may_be_real_time=_may_be_real_time(),
        user=user_name(os.geteuid()),
        ports=tuple(ports()),
        errors=tuple(_variables()),
    )


def _variables() -> Iterator[QvlaError]:
    """The profile has a finding of its own; the simulator's matter only where it is installed."""
    for error in environment_errors(os.environ, installed_middlewares(os.environ)):
        if error.key not in PROFILE_VARIABLES:
            yield error
    if find_spec("libero") is not None:
        yield from gl_errors(os.environ)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _onnxruntime() -> tuple[str | None, tuple[str, ...]]:
    if find_spec("onnxruntime") is None:
        return None, ()
    import onnxruntime

    return onnxruntime.__version__, tuple(onnxruntime.get_available_providers())


def _tensorrt() -> dict[str, str]:
    found = {}
    for flavour, module in FLAVOURS.items():
        if find_spec(module) is not None:
            try:
                found[flavour] = str(import_flavour(flavour)[1].__version__)
            except QvlaError:  # installed without the libraries that it needs
                continue
    return found


def _gpu() -> tuple[str | None, str]:
    try:
        gpu = Gpu()
    except QvlaError as error:
        return None, str(error.value)
    try:
        return gpu.compute_capability, ""
    finally:
        gpu.close()


def _text(path: str | None) -> str | None:
    try:
        return None if path is None else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _space(directory: Path) -> tuple[int, int] | None:
    try:
        usage = shutil.disk_usage(directory)
    except OSError:
        return None
    return usage.total, usage.free


def _may_be_real_time() -> bool:
    """Asks the system, in a thread that ends at once: limits, rights and containers all count."""
    allowed: list[bool] = []

    def ask() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REAL_TIME_PRIORITY))
        except OSError:
            return
        allowed.append(True)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return bool(allowed)
