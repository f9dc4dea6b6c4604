"""Finds and frees the shared memory that killed nodes leave behind.

A node that is killed cannot remove its Fast DDS segments, some 17 MB each with the large-image
profile. Each segment of a living process comes with a file `<name>_el` that it holds locked
(flock); the kernel drops the lock with the process, so a lock that can be taken marks an orphan.
"""

from __future__ import annotations

import fcntl
from contextlib import suppress
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
_LOCK_SUFFIX = "_el"


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
