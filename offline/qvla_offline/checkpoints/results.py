"""Recognises checkpoint directories that this project wrote: a new result may replace only those.

Every checkpoint in Hugging Face's layout has a config.json, so that file says nothing. A stamp
does: a hidden file, which no copy of the checkpoint's content takes along, with the kind of result
and the hash of the config.json that it was written with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from qvla_ros.atomic import atomic_directory, require_replaceable
from qvla_ros.bundle import sha256_of

ResultKind = Literal["trained", "random", "fakequant"]
STAMP = ".qvla_result.json"


@contextmanager
def result_directory(path: str | Path, kind: ResultKind) -> Iterator[Path]:
    """An atomic_directory for a checkpoint of `kind`.

    It replaces nothing but an earlier result of that kind.
    """
    with atomic_directory(
        path, _marker(kind), lambda directory: is_result(directory, kind)
    ) as directory:
        yield directory
        stamp = {"kind": kind, "config_sha256": sha256_of(directory / "config.json")}
        (directory / STAMP).write_text(json.dumps(stamp) + "\n", encoding="utf-8")


def require_result_replaceable(path: str | Path, kind: ResultKind) -> None:
    """Raises QvlaError unless result_directory may put a checkpoint of `kind` at `path`.

    For long work to ask first.
    """
    require_replaceable(path, _marker(kind), lambda directory: is_result(directory, kind))


def is_result(directory: Path, kind: ResultKind) -> bool:
    """Whether this project wrote the checkpoint in `directory`, as `kind`, and its config.json is
    still the same.

    Checkpoints that it wrote before there were stamps count too, where their config.json
    differs from all others'.
    """
    config = directory / "config.json"
    if not config.is_file():
        return False
    if not (directory / STAMP).is_file():
        return _unstamped_kind(_json_object(config)) == kind
    stamp = _json_object(directory / STAMP)
    return stamp.get("kind") == kind and stamp.get("config_sha256") == sha256_of(config)


def _unstamped_kind(config: dict[str, object]) -> ResultKind | None:
    """The kind of a result without a stamp, from config.json; None for other checkpoints.

    transformers writes its version into every config.json; `resize_size` is this project's own key.

    Fake-quantized checkpoints carry the config.json of their source, so they are not known without
    a stamp.
    """
    if "resize_size" not in config or {"transformers_version", "auto_map"} & set(config):
        return None
    return "trained" if "decoding" in config else "random"


def _json_object(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _marker(kind: ResultKind) -> str:
    return f"a {STAMP} of kind {kind}"
