"""Runs nodes in a private ROS graph, as child processes that end with their parent."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from qvla_ros.errors import QvlaError
from qvla_ros.evaluation.shared_memory import remove_orphans
from qvla_ros.resources import share_path

# Domain 0 is everyone's default; above 101 the ports may collide with the ephemeral range of Linux.
PRIVATE_DOMAINS = range(1, 102)
# How long a child may take after each signal. At SIGINT a node stops the arm and shuts its context
# down.
SIGNALS_AND_PATIENCE_S = ((signal.SIGINT, 6.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0))
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Child:
    """A running process. log: its output (standard error only, when stdout is a pipe)."""

    name: str
    process: subprocess.Popen[str]
    log: Path

    def last_words(self, lines: int = 8) -> list[str]:
        """The last lines of the log that are not empty, for an error message."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:] or [
            "(it wrote nothing)"
        ]


def start(
    name: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    log_dir: Path,
    pipe_stdout: bool = False,
) -> Child:
    """Starts `python arguments...` in its own session.

    Ctrl-C then reaches the parent alone, which ends the child. If the parent dies without that, the
    kernel sends the child SIGTERM.
    """
    log = log_dir / f"{name}.log"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipe_stdout else file,
            stderr=file,
            text=True,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    return Child(name, process, log)


@contextmanager
def stopped_at_the_end(children: list[Child]) -> Iterator[list[Child]]:
    """Ends each of `children` (the list may grow) when the block is left, for whatever reason.

    SIGTERM to this process counts as Ctrl-C, so that a supervisor's stop cleans up too.
    """
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield children
    finally:
        stop(children)
        signal.signal(signal.SIGTERM, previous)


def stop(children: Sequence[Child]) -> None:
    """Ends the children: SIGINT first, then SIGTERM, then SIGKILL for those that still run."""
    for number, patience_s in SIGNALS_AND_PATIENCE_S:
        running = [child.process for child in children if child.process.poll() is None]
        for process in running:
            with suppress(ProcessLookupError):
                process.send_signal(number)
        deadline = time.monotonic() + patience_s
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))


@contextmanager
def private_ros_environment(log_dir: Path) -> Iterator[dict[str, str]]:
    """Environment variables for nodes that communicate with each other alone.

    Leave the block when the nodes have ended: the shared memory of killed ones is freed then.
    """
    profile = str(share_path("config/fastdds.xml"))
    with _private_domain() as domain:
        try:
            yield {
                **os.environ,
                "ROS_DOMAIN_ID": str(domain),
                "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
                "ROS_LOG_DIR": str(log_dir),
                "FASTDDS_DEFAULT_PROFILES_FILE": profile,
                "FASTRTPS_DEFAULT_PROFILES_FILE": profile,  # up to Jazzy
                "PYTHONUNBUFFERED": "1",
            }
        finally:
            remove_orphans()


@contextmanager
def _private_domain() -> Iterator[int]:
    """A ROS domain that no other evaluation of this user uses; a lock holds it."""
    folder = Path(tempfile.gettempdir()) / f"qvla_ros_domains_{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        domain, lock = _lock_a_domain(folder)
    except OSError as error:
        fix = "set TMPDIR to a folder that belongs to you, or remove this one"
        raise QvlaError(
            str(folder), error, "a folder in which this user can lock files", fix
        ) from None
    with lock:
        yield domain


def _lock_a_domain(folder: Path) -> tuple[int, TextIO]:
    """A domain and its locked file; closing the file frees the domain."""
    # Two that start together try different ones first.
    start_at = os.getpid() % len(PRIVATE_DOMAINS)
    for offset in range(len(PRIVATE_DOMAINS)):
        domain = PRIVATE_DOMAINS[(start_at + offset) % len(PRIVATE_DOMAINS)]
        lock = (folder / f"{domain}.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return domain, lock
    raise QvlaError(
        "ROS_DOMAIN_ID", "101 evaluations running", "a free domain", "wait for one of them to end"
    )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
