"""Says what is wrong with a bag that cannot be read, and with what tool it is mended."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import yaml

from qvla_ros.errors import NO_KNOWN_FIX, QvlaError, QvlaWarning, os_error_fix

STORAGE = (".mcap", ".db3")
METADATA = "metadata.yaml"
_MCAP_MAGIC = b"\x89MCAP0\r\n"
_SQLITE_MAGIC = b"SQLite format 3\0"
_EXPECTED = "a ROS 2 bag that can be read"


def require_whole(path: Path) -> None:
    """Raises QvlaError for what is no ROS 2 bag by its name, and for a storage file that was cut.

    Warns of storage files in a directory that its metadata.yaml does not name.
    """
    if path.suffix == ".bag":
        fix = f"convert it: rosbags-convert --src {path} --dst {path.with_suffix('')}"
        raise QvlaError(str(path), "a ROS 1 bag", "a ROS 2 bag", fix)
    if path.is_file() and path.suffix not in STORAGE:
        expected = "a directory, or a file that ends in " + " or ".join(STORAGE)
        fix = "name the bag's directory; a file of another name needs its ending back"
        raise QvlaError(str(path), f"a file that ends in {path.suffix!r}", expected, fix)
    named = _named(path / METADATA)
    for file in _storage_files(path):
        if not named or file.name in named:
            _require_whole_file(file)
        else:
            text = f"{file} is not read: the {METADATA} beside it does not name it"
            warnings.warn(text, QvlaWarning, stacklevel=3)


def files_without_metadata(path: Path, error: Exception) -> list[Path]:
    """The storage files of a directory that does not open as it stands; `error`: why not.

    A recording that was cut off has no metadata.yaml, or one that names no storage: its files are
    read without it, with a warning. Raises what `error` means where there are none.
    """
    files = _storage_files(path)
    if not path.is_dir() or not files:
        raise unreadable(path, error) from error
    text = f"{path} is read without {METADATA} ({error}); `ros2 bag reindex {path}` makes a new one"
    warnings.warn(text, QvlaWarning, stacklevel=3)
    return files


def unreadable(path: Path, error: Exception) -> QvlaError:
    """What the parser's error about the bag at `path` means."""
    fix = NO_KNOWN_FIX
    if isinstance(error, OSError):
        fix = os_error_fix(error)
    elif "disk image is malformed" in str(error):  # SQLite's own words
        fix = _recover_sqlite(path)
    return QvlaError(str(path), f"{type(error).__name__}: {error}", _EXPECTED, fix)


def undecodable(path: Path, topic: str, kind: str, error: Exception) -> QvlaError:
    """A message of the bag that is not what its type says."""
    found = f"{type(error).__name__}: {error}"
    return QvlaError(f"{path}: a message on {topic}", found, f"a {kind}", NO_KNOWN_FIX)


def _require_whole_file(file: Path) -> None:
    """Raises QvlaError for a storage file that was cut off, or is no such file."""
    size_bytes = file.stat().st_size
    if not size_bytes:
        fix = "record it again: nothing was written"
        raise QvlaError(str(file), "an empty file", _EXPECTED, fix)
    with file.open("rb") as opened:
        first = opened.read(len(_SQLITE_MAGIC))
        opened.seek(max(0, size_bytes - len(_MCAP_MAGIC)))
        last = opened.read()
    magic = _MCAP_MAGIC if file.suffix == ".mcap" else _SQLITE_MAGIC
    if not first.startswith(magic):
        found = f"{size_bytes} bytes that begin with {first[:8]!r}"
        fix = "record it again, or copy it again if it was whole elsewhere"
        raise QvlaError(str(file), found, f"{_EXPECTED}: a {file.suffix} file", fix)
    if file.suffix == ".mcap" and last != _MCAP_MAGIC:
        recovered = file.with_name(f"{file.stem}_recovered.mcap")
        fix = f"run `mcap recover {file} -o {recovered}` (the MCAP CLI), and name {recovered}"
        raise QvlaError(str(file), "a recording that was cut off", _EXPECTED, fix)


def _recover_sqlite(path: Path) -> str:
    file = path if path.is_file() else next(path.glob("*.db3"), path / "FILE.db3")
    recovered = file.with_name(f"{file.stem}_recovered.db3")
    rows = f"sqlite3 {file} .dump | sed 's/^ROLLBACK.*/COMMIT;/'"  # all that it can still read
    return f"run `{rows} | sqlite3 {recovered}`, and name {recovered}"


def _storage_files(path: Path) -> list[Path]:
    """The file itself, or those of a directory."""
    among = path.iterdir() if path.is_dir() else [path]
    return sorted(file for file in among if file.suffix in STORAGE)


def _named(metadata: Path) -> list[str]:
    """The files that metadata.yaml names; none if it cannot be read."""
    try:
        content: Any = yaml.safe_load(metadata.read_text(encoding="utf-8"))
        files = content["rosbag2_bagfile_information"]["relative_file_paths"]
        return [Path(str(file)).name for file in files]
    except (OSError, ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError):
        return []
