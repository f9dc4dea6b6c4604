"""Recognises what is given in place of a checkpoint directory, and says how to make one of it."""

from __future__ import annotations

import re
from pathlib import Path

from qvla_offline.checkpoints import lora
from qvla_ros.errors import QvlaError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CONVERTER = "vla-scripts/extern/convert_openvla_weights_to_hf.py"  # of the openvla repository


def require_checkpoint(path: Path, key: str = "checkpoint") -> None:
    """Raises QvlaError unless `path` is a directory in Hugging Face's layout, or an adapter's.

    Known besides: the id of a repository on the Hugging Face hub, the cache of its downloads, and
    a training run of Prismatic, from which OpenVLA came.
    """
    if not path.is_dir():
        found = str(path)
        fix = "check the path"
        if path.is_file():
            found = f"{path}, a file"
            fix = f"name its directory: {path.parent}"
            if path.suffix == ".pt" and path.parent.name == "checkpoints":
                found += " of a Prismatic training run"
                fix = _convert(path.parent.parent)
        elif is_hub_id(str(path)) and not path.parent.exists():
            fix = f"if it is on the Hugging Face hub: {download(str(path))}, and name that folder"
        raise QvlaError(key, found, "a checkpoint directory", fix)
    if any((path / name).is_file() for name in ("config.json", lora.CONFIG)):
        if (path / "checkpoints").is_dir() and not any(path.glob("*.safetensors*")):
            _refuse(path, key, "a Prismatic training run", _convert(path))
        return
    if any((path / "checkpoints").glob("*.pt")):
        _refuse(path, key, "a Prismatic training run", _convert(path))
    inner = sorted(file.parent for file in path.glob("snapshots/*/config.json"))
    if inner:
        _refuse(path, key, "the cache of a download", f"name the snapshot in it: {inner[-1]}")


def is_hub_id(name: str) -> bool:
    """Whether `name` may be a repository on the Hugging Face hub: OWNER/NAME."""
    return _HUB_ID.fullmatch(name) is not None


def download(hub_id: str, kind: str = "model") -> str:
    """The command that brings a repository of the hub into a folder here; kind: or "dataset"."""
    kinds = "" if kind == "model" else f"--repo-type {kind} "
    return f"`hf download {hub_id} {kinds}--local-dir {hub_id.rpartition('/')[2]}`"


def _refuse(path: Path, key: str, found: str, fix: str) -> None:
    raise QvlaError(key, f"{path}, {found}", "a checkpoint directory with config.json", fix)


def _convert(run: Path) -> str:
    """The command that makes a checkpoint of a training run, with the code that trained it."""
    out = run.with_name(f"{run.name}-hf")
    return (
        f"convert it with the openvla repository: `python {_CONVERTER} "
        f"--openvla_model_path_or_id {run} --output_hf_model_local_path {out}`, and name {out}"
    )
