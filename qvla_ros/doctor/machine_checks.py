"""Checks that a policy node can run on this machine, and that images fit through shared memory."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from qvla_ros.bundle import Bundle
from qvla_ros.doctor.environment import REAL_TIME_PRIORITY, Machine
from qvla_ros.doctor.findings import Finding, failed, ok, problem, warning
from qvla_ros.engines.requirements import onnxruntime_error
from qvla_ros.ros_environment import profile_variable

PYTHONS = ((3, 10), (3, 13))  # from, and below; pyproject.toml
# Of Fast DDS without a profile: a larger message is cut into fragments.
DEFAULT_SEGMENT_BYTES = 512 << 10
_HEADROOM_BYTES = 4096  # a message is more than its pixels
_PROCESSES = 4  # policy, driver, camera, recorder: each has a segment of its own
_USUAL_IMAGE_BYTES = 640 * 480 * 3


@dataclass(frozen=True)
class SharedMemoryTransport:
    """The sizes of the shared memory in a Fast DDS profile, bytes."""

    segment_bytes: int
    max_message_bytes: int


def machine_findings(machine: Machine, bundle: Bundle | None) -> Iterator[Finding]:
    """Checks Python, ROS and engines, then whether images fit through shared memory.

    bundle: whose images; None: those of 640x480.
    """
    yield _python(machine)
    yield _ros(machine)
    yield from (failed("environment", error) for error in machine.errors)
    yield _onnxruntime(machine)
    yield _gpu(machine)
    yield _profile(machine, largest_image_bytes(bundle), problem if bundle else warning)
    yield from _shared_memory(machine)
    yield _real_time(machine)
    yield from _users(machine)


def largest_image_bytes(bundle: Bundle | None) -> int:
    """The largest rgb8 image of the bundle's cameras; of a usual camera without a bundle."""
    return (
        _USUAL_IMAGE_BYTES
        if bundle is None
        else max(3 * c.height * c.width for c in bundle.cameras)
    )


def shared_memory_transport(profile: str) -> SharedMemoryTransport | None:
    """Reads the SHM transport of a Fast DDS profile; None if it has none, ValueError if not XML."""
    try:
        root = ElementTree.fromstring(profile)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    for element in root.iter():
        if _name(element) != "transport_descriptor":
            continue
        fields = {_name(child): (child.text or "").strip() for child in element}
        if fields.get("type") == "SHM":
            segment = int(fields.get("segment_size", DEFAULT_SEGMENT_BYTES))
            return SharedMemoryTransport(segment, int(fields.get("maxMessageSize", segment)))
    return None


def _users(machine: Machine) -> Iterator[Finding]:
    """Shared memory belongs to a user: another one's nodes are found, and not heard or not told."""
    about = "users"
    if machine.rmw and "fastrtps" not in machine.rmw and "fastdds" not in machine.rmw:
        return
    here = f"in domain {machine.domain} of this machine"
    others = sorted(
        {
            port.user
            for port in machine.ports
            if str(port.domain) == machine.domain and port.is_alive and port.user != machine.user
        }
    )
    if not others:
        yield ok(about, f"nobody but {machine.user} runs nodes {here}")
        return
    fix = (
        "run all of them as one user (docker run --user $(id -u):$(id -g)); or, for every "
        f"process, unset {profile_variable(machine.ros_distro)} and export "
        "FASTDDS_BUILTIN_TRANSPORTS=UDPv4 ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET"
    )
    text = (
        f"{', '.join(others)} runs nodes {here}, this is {machine.user}: messages reach one side "
        "only, or none, and the graph below may be a part of it"
    )
    yield problem(about, text, fix)


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _python(machine: Machine) -> Finding:
    text = ".".join(map(str, machine.python)) + f" on {machine.machine}"
    if PYTHONS[0] <= machine.python[:2] < PYTHONS[1]:
        return ok("Python", text)
    return problem(
        "Python",
        text,
        "use Python 3.10, 3.11 or 3.12: the one that your ROS distribution was built for",
    )


def _ros(machine: Machine) -> Finding:
    if machine.ros_distro is None and machine.rclpy is None:
        fix = (
            "source /opt/ros/DISTRO/setup.bash, or `make setup` in a checkout, which "
            "brings ROS as wheels"
        )
        return problem("ROS 2", "not found", fix)
    text = (
        f"{machine.ros_distro or 'distribution unknown'}, rclpy "
        f"{machine.rclpy or 'unknown'}, {machine.rmw}"
    )
    return ok("ROS 2", f"{text}; domain {machine.domain}, discovery {machine.discovery}")


def _onnxruntime(machine: Machine) -> Finding:
    if machine.onnxruntime is None:
        return warning(
            "ONNX Runtime",
            "not installed",
            "pip install onnxruntime, unless TensorRT runs the policy",
        )
    if old := onnxruntime_error(machine.onnxruntime):
        return failed("ONNX Runtime", old)
    names = ", ".join(provider.removesuffix("ExecutionProvider") for provider in machine.providers)
    return ok("ONNX Runtime", f"{machine.onnxruntime} ({names})")


def _gpu(machine: Machine) -> Finding:
    flavours = (
        ", ".join(f"{flavour} {version}" for flavour, version in machine.tensorrt.items())
        or "no TensorRT"
    )
    if machine.compute_capability is None:
        return ok("GPU", f"none ({machine.gpu_error}); {flavours}")
    return ok("GPU", f"compute capability {machine.compute_capability}; {flavours}")


def _profile(
    machine: Machine, image_bytes: int, wrong: Callable[[str, str, str], Finding]
) -> Finding:
    """Whether images fit through shared memory; `wrong` makes the finding if they do not."""
    about = "Fast DDS profile"
    if "fastrtps" not in machine.rmw and "fastdds" not in machine.rmw:
        return ok(about, f"not needed with {machine.rmw}")
    size = f"{image_bytes / 1024:.0f} KiB an image"
    variable = profile_variable(machine.ros_distro)
    fix = (
        f"export {variable}=.../share/qvla/config/fastdds.xml for every process that "
        "sends or gets images"
    )
    if machine.profile is not None:
        return _given_profile(machine, image_bytes, wrong, fix)
    if image_bytes + _HEADROOM_BYTES <= DEFAULT_SEGMENT_BYTES:
        return ok(about, f"none, and none needed: {size}")
    text = (
        f"none: {size} do not fit in {DEFAULT_SEGMENT_BYTES >> 10} KiB; the nodes of this package "
        "take theirs, but most frames of other processes, such as camera drivers, get lost"
    )
    return wrong(about, text, fix)


def _given_profile(
    machine: Machine, image_bytes: int, wrong: Callable[[str, str, str], Finding], fix: str
) -> Finding:
    about = "Fast DDS profile"
    name = machine.profile
    if machine.profile_text is None:
        return problem(about, f"{name} cannot be read", fix)
    try:
        transport = shared_memory_transport(machine.profile_text)
    except ValueError as error:
        return problem(about, f"{name}: {error}", fix)
    if transport is None:
        text = f"{name} has no shared memory transport: images go through sockets"
        return warning(about, text, fix)
    size = f"{image_bytes / 1024:.0f} KiB an image"
    smallest_bytes = min(transport.segment_bytes, transport.max_message_bytes)
    if smallest_bytes < image_bytes + _HEADROOM_BYTES:
        sizes = (
            f"segment {transport.segment_bytes >> 10} KiB, maxMessageSize "
            f"{transport.max_message_bytes >> 10} KiB"
        )
        return wrong(about, f"{name}: {sizes}, but {size}", f"enlarge both in it, or {fix}")
    segment = f"a segment of {transport.segment_bytes >> 20} MiB"
    return ok(about, f"{name}: {size} fit in {segment}")


def _shared_memory(machine: Machine) -> Iterator[Finding]:
    about = "/dev/shm"
    if machine.shared_memory_bytes is None:
        yield warning(about, "not there: messages go through sockets", "mount a tmpfs at /dev/shm")
        return
    total, free = machine.shared_memory_bytes
    transport = None
    if machine.profile_text is not None:
        try:
            transport = shared_memory_transport(machine.profile_text)
        except ValueError:  # the profile has a finding of its own
            transport = None
    needed = _PROCESSES * (DEFAULT_SEGMENT_BYTES if transport is None else transport.segment_bytes)
    text = f"{free >> 20} of {total >> 20} MiB free"
    if free < needed:
        fix = "in a container: --shm-size=1g or --ipc=host; else remove what fills it"
        yield problem(about, f"{text}, {_PROCESSES} processes take {needed >> 20} MiB", fix)
    else:
        yield ok(about, text)
    if machine.orphans:
        fix = "`qvla doctor --remove_orphans`"
        yield warning(about, f"{machine.orphans} segments of processes that were killed", fix)


def _real_time(machine: Machine) -> Finding:
    about = "real time"
    if machine.may_be_real_time:
        return ok(about, f"priority {REAL_TIME_PRIORITY} is allowed: prefix:='chrt -f 40'")
    limits = (
        f"echo '@realtime - rtprio {REAL_TIME_PRIORITY}' > /etc/security/limits.d/realtime.conf"
    )
    fix = (
        f"as root: groupadd -f realtime; usermod -aG realtime USER; {limits}; then log in again "
        "(in a container: --cap-add=sys_nice --ulimit rtprio=40)"
    )
    text = f"priority {REAL_TIME_PRIORITY} is not allowed: on a loaded machine commands are late"
    return warning(about, text, fix)
