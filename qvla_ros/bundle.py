"""The bundle: one directory with all that a robot needs to run a policy.

Nothing else reaches the robot.

`bundle.json` describes what the policy sees, reads and commands (qvla_ros.manifest), and holds the
SHA-256 of every other file; `engines/` holds what was built from the graph for one machine and is
not part of the identity.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvla_ros.atomic import atomic_directory
from qvla_ros.decoding.action_tokens import TokenSpec
from qvla_ros.decoding.diffusion import DiffusionSpec
from qvla_ros.decoding.univla import LatentSpec
from qvla_ros.errors import QvlaError
from qvla_ros.manifest import MANIFEST_NAME, DecoderSpec, Manifest
from qvla_ros.specifications import (
    FIX_MANIFEST,
    ActionSpec,
    CameraSpec,
    GripperConvention,
    Normalization,
    PromptSpec,
    ProprioceptionSpec,
    QuantizationSummary,
    Statistics,
    require,
)
from qvla_ros.strict_json import canonical_json, parse, read_json

__all__ = [
    "MANIFEST_NAME",
    "ActionSpec",
    "Bundle",
    "CameraSpec",
    "DecoderSpec",
    "DiffusionSpec",
    "GripperConvention",
    "LatentSpec",
    "Manifest",
    "Normalization",
    "PromptSpec",
    "ProprioceptionSpec",
    "QuantizationSummary",
    "Statistics",
    "TokenSpec",
    "load_bundle",
    "save_bundle",
    "sha256_of",
]

SCHEMA_VERSION = 1
REQUIRED_FILES = ("policy.onnx", "tokenizer.json", "statistics.json")
KNOWN_FILES = (*REQUIRED_FILES, "policy.onnx.data", "policy.unpacked.onnx", "gates.json")


@dataclass(frozen=True, kw_only=True)
class Bundle(Manifest):
    """A verified bundle.

    bundle_id: 16 hex digits that name its weights, gates, statistics and specification.
    """

    directory: Path
    bundle_id: str
    statistics: dict[str, Statistics]
    files: dict[str, str]


def save_bundle(
    directory: str | os.PathLike[str],
    manifest: Manifest,
    files: Mapping[str, Path],
    prove: Callable[[Path], None] | None = None,
) -> Bundle:
    """Copies `files` (name in the bundle -> path) and writes the manifest.

    All or nothing. Returns the verified bundle.

    prove: called with the whole bundle under a temporary name; it may add files that are no part of
    the identity. If it raises, the bundle goes, and an earlier one in `directory` stays.
    """
    for name in files:
        require(name in KNOWN_FILES, "bundle file", name, "one of " + ", ".join(KNOWN_FILES))
    with atomic_directory(directory, MANIFEST_NAME) as temporary:
        for name, path in files.items():
            shutil.copyfile(path, temporary / name)
        content = {
            "schema_version": SCHEMA_VERSION,
            **asdict(manifest),
            "files": {name: sha256_of(temporary / name) for name in sorted(files)},
        }
        content = {**content, "bundle_id": _identity(content)}
        (temporary / MANIFEST_NAME).write_text(
            json.dumps(content, indent=1) + "\n", encoding="utf-8"
        )
        load_bundle(temporary, verify_hashes=False)
        if prove is not None:
            prove(temporary)
    return load_bundle(directory, verify_hashes=False)


def load_bundle(directory: str | os.PathLike[str], verify_hashes: bool = True) -> Bundle:
    """Reads and checks a bundle.

    QvlaError names the first thing that is missing, damaged or does not fit.
    """
    root = Path(directory)
    fix_missing = (
        "name a bundle directory, as `qvla export --out_dir DIR` or `qvla quantize` makes it"
    )
    if not root.is_dir():
        raise QvlaError("bundle", str(root), "a directory", fix_missing)
    content = read_json(root / MANIFEST_NAME, fix_missing)
    if not isinstance(content, dict):
        raise QvlaError(MANIFEST_NAME, type(content).__name__, "a JSON object", FIX_MANIFEST)
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        fix = (
            "export the bundle with the qvla release that runs here, or install the "
            "release that exported it"
        )
        raise QvlaError(
            f"{root / MANIFEST_NAME}: schema_version", version, str(SCHEMA_VERSION), fix
        )
    files = _parse_files(content.get("files"))
    body = {
        key: value
        for key, value in content.items()
        if key not in ("schema_version", "files", "bundle_id")
    }
    manifest = parse(Manifest, body, MANIFEST_NAME, FIX_MANIFEST)
    identity = _identity({key: value for key, value in content.items() if key != "bundle_id"})
    if content.get("bundle_id") != identity:
        raise QvlaError(
            f"{MANIFEST_NAME}.bundle_id", content.get("bundle_id"), identity, FIX_MANIFEST
        )
    _check_files(root, files, verify_hashes)
    statistics = _load_statistics(root / "statistics.json", manifest)
    parts = {field.name: getattr(manifest, field.name) for field in fields(Manifest)}
    return Bundle(**parts, directory=root, bundle_id=identity, statistics=statistics, files=files)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _identity(content: Mapping[str, object]) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()[:16]


def _parse_files(value: object) -> dict[str, str]:
    key = f"{MANIFEST_NAME}.files"
    files = parse(dict[str, str], value, key, FIX_MANIFEST)
    for name in REQUIRED_FILES:
        require(name in files, key, f"no {name}", "the hashes of " + ", ".join(REQUIRED_FILES))
    for name in files:  # a fixed list also keeps paths out of the bundle
        require(name in KNOWN_FILES, key, name, "only " + ", ".join(KNOWN_FILES))
    return files


def _check_files(root: Path, files: Mapping[str, str], verify_hashes: bool) -> None:
    for name, expected in files.items():
        fix = "copy the bundle again, whole; if it was never whole, export it again"
        if not (root / name).is_file():
            raise QvlaError(
                f"bundle file {root / name}", "no such file", f"a file with SHA-256 {expected}", fix
            )
        found = sha256_of(root / name) if verify_hashes else expected
        if found != expected:
            raise QvlaError(
                f"bundle file {root / name}", f"SHA-256 {found}", f"SHA-256 {expected}", fix
            )


def _load_statistics(path: Path, manifest: Manifest) -> dict[str, Statistics]:
    content = read_json(path, FIX_MANIFEST)
    wanted = {"action": (len(manifest.actions.names), manifest.actions.normalization)}
    if manifest.proprioception is not None:
        wanted["proprio"] = (
            len(manifest.proprioception.names),
            manifest.proprioception.normalization,
        )
    return {
        key: _parse_statistics(content, key, length, kind) for key, (length, kind) in wanted.items()
    }


def _parse_statistics(content: object, key: str, length: int, normalization: str) -> Statistics:
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, dict):
        expected = "an object with q01, q99, min and max"
        raise QvlaError(f"statistics.json.{key}", type(found).__name__, expected, FIX_MANIFEST)
    entry = found

    def vector(name: str, kind: Any = tuple[float, ...]) -> NDArray:
        values = parse(kind, entry.get(name), f"statistics.json.{key}.{name}", FIX_MANIFEST)
        require(
            len(values) == length,
            f"statistics.json.{key}.{name}",
            f"{len(values)} numbers",
            f"{length} numbers",
        )
        return np.array(values)

    low, high = ("q01", "q99") if normalization == "q99" else ("min", "max")
    mask = (
        vector("mask", tuple[bool, ...]) if entry.get("mask") is not None else np.ones(length, bool)
    )
    result = Statistics(vector(low), vector(high), vector("min"), vector("max"), mask)
    ordered = bool(np.all(result.low <= result.high) and np.all(result.min <= result.max))
    require(
        ordered,
        f"statistics.json.{key}",
        "a low above its high",
        f"{low} <= {high} and min <= max everywhere",
    )
    return result
