"""Writes files and directories so that they appear whole, under their final name, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from qvla_ros.errors import QvlaError


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path` (same suffix).

    Rename it to `path` if the block succeeds, else remove it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(
        prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent
    )
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes it private; a result is as readable as any other file
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(
    path: str | os.PathLike[str], marker: str, is_result: Callable[[Path], bool] | None = None
) -> Iterator[Path]:
    """Yields a temporary directory beside `path`.

    Put it in place of `path` if the block succeeds, else remove it.

    What is at `path` goes, so it must be empty or an earlier result, which `is_result` knows; else
    QvlaError. Default: by its file `marker`, which must be a name that only results have.
    """
    require_replaceable(path, marker, is_result)
    target = Path(path).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        if target.exists():
            retired = (
                Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
                / target.name
            )
            os.replace(target, retired)
            os.replace(temporary, target)
            shutil.rmtree(retired.parent)
        else:
            os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_replaceable(
    path: str | os.PathLike[str], marker: str, is_result: Callable[[Path], bool] | None = None
) -> None:
    """Raises QvlaError unless atomic_directory may put a result at `path`.

    For long work to ask before it begins.
    """
    target = Path(path)
    known = (target / marker).is_file() if is_result is None else is_result(target)
    if target.exists() and not known and (not target.is_dir() or any(target.iterdir())):
        fix = "name a new directory, or empty this one yourself"
        raise QvlaError(
            f"output directory {path}", "other files in it", f"a new one, or one with {marker}", fix
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
