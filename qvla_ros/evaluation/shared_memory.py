"""Finds and frees the shared memory that killed nodes leave behind.

A node that is killed cannot remove its Fast DDS segments, some 17 MB each with the large-image
profile. Each segment of a living process comes with a file `<name>_el` that it holds locked
(flock); the kernel drops the lock with the process, so a lock that can be taken marks an orphan.
"""

from __future__ import annotations

import fcntl
import pwd
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
_LOCK_SUFFIX = "_el"
_PORT = "fastdds_port"
# The numbers of a domain's ports begin at _FIRST_PORT + _DOMAIN_PORTS * domain (DDSI-RTPS 9.6.1.1).
_FIRST_PORT = 7400
_DOMAIN_PORTS = 250


@dataclass(frozen=True)
class Port:
    """A shared memory port, through which a process hears others.

    user: the name of its owner; no other user can write into it. is_alive: its process runs.
    """

    domain: int
    user: str
    is_alive: bool


def ports(directory: Path = SHARED_MEMORY) -> list[Port]:
    """All ports of Fast DDS on this machine, whoever owns them."""
    found = []
    for path in sorted(directory.glob(f"{_PORT}*")):
        number = path.name.removeprefix(_PORT)
        if number.isdigit():
            with suppress(OSError):  # it is gone meanwhile
                domain = (int(number) - _FIRST_PORT) // _DOMAIN_PORTS
                found.append(Port(domain, user_name(path.stat().st_uid), _is_held(path)))
    return found


def user_name(uid: int) -> str:
    """The user's name, or the number of one that this machine does not know (a container's)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _is_held(path: Path) -> bool:
    """Whether a process holds the lock beside a port."""
    lock = path.with_name(path.name + _LOCK_SUFFIX)
    return lock.exists() and not _if_orphan(lock, remove=False)


def remove_orphans(directory: Path = SHARED_MEMORY) -> int:
    """Removes Fast DDS segments and ports whose process is dead, and returns how many."""
    return sum(_if_orphan(lock, remove=True) for lock in _locks(directory))


def orphans(directory: Path = SHARED_MEMORY) -> list[str]:
    """Names of the segments and ports whose process is dead."""
    return [
        lock.name.removesuffix(_LOCK_SUFFIX)
        for lock in _locks(directory)
        if _if_orphan(lock, remove=False)
    ]


def mapped_by(pid: int) -> set[str]:
    """Names of the segments and ports that a running process has mapped, others' included."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {Path(line.split()[5]).name for line in lines if f"{SHARED_MEMORY}/fastdds" in line}


def _locks(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"fastdds_*{_LOCK_SUFFIX}"))


def _if_orphan(lock: Path, remove: bool) -> bool:
    name = lock.name.removesuffix(_LOCK_SUFFIX)
    # it is gone meanwhile, another user's, or locked
    with (
        suppress(OSError),
        lock.open("rb") as file,
    ):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in (
            (lock.with_name(name), lock.with_name(f"sem.{name}_mutex"), lock) if remove else ()
        ):
            path.unlink(missing_ok=True)
        return True
    return False
