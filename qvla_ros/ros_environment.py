"""The environment variables that ROS 2 reads, and what is wrong with their values.

ROS says little about them: one ends the process without a word of Python, others are ignored or
show only as an error of logging. So they are looked at before rclpy.init, and by `qvla doctor`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from qvla_ros.errors import QvlaError

# Fast DDS 2, of these distributions, reads the second; later ones the first.
_OLD_FAST_DDS = ("humble", "jazzy")
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
PROFILE = "config/fastdds.xml"
# Fast DDS: a domain's ports are 7400 + 250 * domain, and there are 65535.
MAX_DOMAIN = 232
DISCOVERY_RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
_SWITCHES = (
    "RCUTILS_COLORIZED_OUTPUT",
    "RCUTILS_LOGGING_USE_STDOUT",
    "RCUTILS_LOGGING_BUFFERED_STREAM",
)
_RMW_INDEX = "share/ament_index/resource_index/rmw_typesupport"


def environment_errors(
    environment: Mapping[str, str], middlewares: Collection[str] = ()
) -> Iterator[QvlaError]:
    """What keeps ROS from starting, or from doing what a variable says, one error a variable.

    middlewares: the installed ones; empty: not known. The log folder is made, as ROS makes it.
    """
    yield from middleware_errors(environment, middlewares)
    yield from _domain(environment)
    yield from _one_of(environment, "ROS_AUTOMATIC_DISCOVERY_RANGE", DISCOVERY_RANGES)
    for name in _SWITCHES:
        yield from _one_of(environment, name, ("0", "1"))
    yield from _profile(environment)
    yield from _security(environment)
    yield from _log_folder(environment)


def middleware_errors(
    environment: Mapping[str, str], middlewares: Collection[str]
) -> Iterator[QvlaError]:
    """Whether RMW_IMPLEMENTATION names a middleware that is not among the installed ones."""
    name = "RMW_IMPLEMENTATION"
    value = environment.get(name)
    if value and middlewares and value not in middlewares:
        expected = f"one that is installed: {', '.join(middlewares)}"
        fix = f"unset {name}; for every process of the graph, or nobody hears it"
        yield QvlaError(name, repr(value), expected, fix)


def installed_middlewares(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the installed rmw implementations; empty where no index of them is found."""
    prefixes = [*filter(None, environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep))]
    names = {
        file.name
        for prefix in [*prefixes, sys.prefix]
        for file in Path(prefix).glob(f"{_RMW_INDEX}/rmw_*")
    }
    return tuple(sorted(names - {"rmw_implementation"}))


def profile_variable(ros_distro: str | None) -> str:
    """The environment variable that names the Fast DDS profile in this distribution."""
    return PROFILE_VARIABLES[ros_distro in _OLD_FAST_DDS]


def log_folder(environment: Mapping[str, str]) -> tuple[str, Path | None]:
    """The variable that decides where ROS writes its logs, and the folder.

    None: it is the user's home that decides, and there is none.
    """
    if environment.get("ROS_LOG_DIR"):
        return "ROS_LOG_DIR", _at_home(environment["ROS_LOG_DIR"], environment)
    if environment.get("ROS_HOME"):
        home = _at_home(environment["ROS_HOME"], environment)
        return "ROS_HOME", None if home is None else home / "log"
    return "HOME", _at_home("~/.ros/log", environment)


def _at_home(path: str, environment: Mapping[str, str]) -> Path | None:
    if not path.startswith("~"):
        return Path(path)
    home = environment.get("HOME")
    return Path(home + path[1:]) if home else None


def _domain(environment: Mapping[str, str]) -> Iterator[QvlaError]:
    name = "ROS_DOMAIN_ID"
    value = environment.get(name)
    if not value:
        return
    try:
        fits = 0 <= int(value) <= MAX_DOMAIN
    except ValueError:
        fits = False
    if not fits:
        fix = f"export {name}=0, or the number that the other processes have"
        yield QvlaError(name, repr(value), f"a whole number from 0 to {MAX_DOMAIN}", fix)


def _one_of(
    environment: Mapping[str, str], name: str, choices: Collection[str]
) -> Iterator[QvlaError]:
    value = environment.get(name)
    if value and value not in choices:
        yield QvlaError(name, repr(value), f"one of {', '.join(choices)}", f"unset {name}")


def _profile(environment: Mapping[str, str]) -> Iterator[QvlaError]:
    for name in PROFILE_VARIABLES:
        value = environment.get(name)
        if value and not os.access(value, os.R_OK):
            found = f"{value}: {'not readable' if Path(value).exists() else 'no such file'}"
            fix = f"correct the path, or unset {name}: nodes then use {PROFILE}"
            yield QvlaError(name, found, "a Fast DDS profile, which would be ignored so", fix)


def _security(environment: Mapping[str, str]) -> Iterator[QvlaError]:
    enforced = (
        environment.get("ROS_SECURITY_ENABLE") == "true"
        and environment.get("ROS_SECURITY_STRATEGY") == "Enforce"
    )
    keystore = environment.get("ROS_SECURITY_KEYSTORE", "")
    if enforced and not Path(keystore or "/nowhere").is_dir():
        name = "ROS_SECURITY_KEYSTORE"
        expected = "a folder of keys: ROS_SECURITY_STRATEGY is Enforce"
        fix = f"export {name}=FOLDER, or unset ROS_SECURITY_ENABLE"
        yield QvlaError(name, keystore or "nothing", expected, fix)


def _log_folder(environment: Mapping[str, str]) -> Iterator[QvlaError]:
    name, folder = log_folder(environment)
    expected = "a folder in which ROS can write its logs"
    fix = "export ROS_LOG_DIR=FOLDER with one that this user can write, such as /tmp/ros_log"
    if folder is None:
        yield QvlaError(name, "nothing", expected, fix)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        found = f"{environment[name]} ({folder}: {error.strerror})"
        yield QvlaError(name, found, expected, fix)
