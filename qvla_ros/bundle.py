"""The bundle: one directory with all that a robot needs to run a policy, and the only thing that
reaches it.

`bundle.json` says what the policy sees, is told and commands, and holds the SHA-256 of every other
file; `engines/` holds what was built from the graph for one machine and is not part of the
identity. Constructing a specification validates it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qvla_ros.atomic import atomic_directory
from qvla_ros.diffusion import NUM_TRAIN_STEPS
from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import FIX_MANIFEST, canonical_json, parse, read_json

SCHEMA_VERSION = 1
MANIFEST_NAME = "bundle.json"
REQUIRED_FILES = ("policy.onnx", "tokenizer.json", "statistics.json")
KNOWN_FILES = (*REQUIRED_FILES, "policy.onnx.data", "policy.unpacked.onnx", "gates.json")

Normalization = Literal["q99", "bounds"]
# How the graph is run; see DecoderSpec.
DecoderKind = Literal["l1_chunk", "action_tokens", "diffusion", "univla"]
# What the un-normalised gripper column of the model means; see qvla_ros.actions.opening_fraction.
GripperConvention = Literal["opening_fraction", "closing_fraction", "signed_closing"]


def _require(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise QvlaError(key, value, expected, FIX_MANIFEST)


@dataclass(frozen=True)
class CameraSpec:
    """One camera as the policy wants it: the published size, then the preprocessing chain
    (qvla_ros.preprocess).

    bicubic_size: side of the square that the image is made first of all, as ALOHA's are; null: left
    as it is. resize_size: side of the Lanczos resize and the crop, where the graph takes another
    one: OpenVLA's evaluations fix it at 224, and their image processor makes input_size of it;
    null: input_size.
    """

    name: str
    height: int
    width: int
    rotate_180: bool
    jpeg_quality: int | None
    input_size: int
    center_crop_area: float | None
    normalizations: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...]
    bicubic_size: int | None = None
    resize_size: int | None = None

    def __post_init__(self) -> None:
        key = f"camera {self.name!r}"
        _require(
            self.name.isidentifier(),
            f"{key}.name",
            self.name,
            "letters, digits and _ (it is part of a topic)",
        )
        for name in ("height", "width", "input_size"):
            _require(
                1 <= getattr(self, name) <= 8192,
                f"{key}.{name}",
                getattr(self, name),
                "1 to 8192 pixels",
            )
        for name in ("bicubic_size", "resize_size"):
            side = getattr(self, name)
            _require(
                side is None or 1 <= side <= 8192,
                f"{key}.{name}",
                side,
                "1 to 8192 pixels, or null",
            )
        quality = self.jpeg_quality
        area = self.center_crop_area
        _require(
            quality is None or 1 <= quality <= 100,
            f"{key}.jpeg_quality",
            quality,
            "1 to 100, or null",
        )
        _require(
            area is None or 0 < area <= 1,
            f"{key}.center_crop_area",
            area,
            "a fraction in (0, 1], or null",
        )
        _require(
            len(self.normalizations) > 0,
            f"{key}.normalizations",
            "none",
            "at least one (mean, std)",
        )
        stds = [value for _, std in self.normalizations for value in std]
        _require(min(stds) > 0, f"{key}.normalizations", stds, "standard deviations above 0")


@dataclass(frozen=True)
class ProprioceptionSpec:
    """The robot's own state, one name per number: `eef_x` ... `eef_axis_angle_z` or a joint's name
    in JointState.
    """

    names: tuple[str, ...]
    normalization: Normalization

    def __post_init__(self) -> None:
        _require(
            _unique(self.names),
            "proprioception.names",
            list(self.names),
            "distinct names, at least one",
        )


@dataclass(frozen=True)
class PromptSpec:
    """The prompt around an instruction; `append_token_id` (29871 for Llama-2 OpenVLA) is made to
    end it.
    """

    template: str
    lowercase: bool
    append_token_id: int | None

    def __post_init__(self) -> None:
        found = self.template.count("{instruction}")
        _require(
            found == 1,
            "prompt.template",
            repr(self.template),
            "a text that holds {instruction} once",
        )


@dataclass(frozen=True)
class ActionSpec:
    """What the policy commands: `chunk_length` actions, one every `control_period_s`, one name and
    unit per number.

    limits: (low, high) per action in `units`, clipped to before anything is published; null: the
    range (min, max) that the training data had, and [0, 1] for the gripper.
    """

    names: tuple[str, ...]
    kind: str
    frame: str
    units: tuple[str, ...]
    gripper_index: int | None
    gripper_convention: GripperConvention | None
    chunk_length: int
    control_period_s: float
    normalization: Normalization
    limits: tuple[tuple[float, float], ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.names)
        index = self.gripper_index
        _require(
            _unique(self.names), "actions.names", list(self.names), "distinct names, at least one"
        )
        _require(
            len(self.units) == count,
            "actions.units",
            list(self.units),
            f"{count} units, one a name",
        )
        _require(
            index is None or 0 <= index < count,
            "actions.gripper_index",
            index,
            f"0 to {count - 1}, or null",
        )
        both = (index is None) == (self.gripper_convention is None)
        _require(
            both,
            "actions.gripper_convention",
            self.gripper_convention,
            "set if and only if gripper_index is",
        )
        _require(
            1 <= self.chunk_length <= 1024,
            "actions.chunk_length",
            self.chunk_length,
            "1 to 1024 actions",
        )
        _require(
            0 < self.control_period_s <= 10,
            "actions.control_period_s",
            self.control_period_s,
            "seconds in (0, 10]",
        )
        if self.limits is not None:
            _require(
                len(self.limits) == count,
                "actions.limits",
                len(self.limits),
                f"{count} pairs, one a name",
            )
            _require(
                all(low < high for low, high in self.limits),
                "actions.limits",
                self.limits,
                "low < high",
            )


@dataclass(frozen=True)
class TokenSpec:
    """OpenVLA's action tokens: `vocabulary` is one past the last, see
    qvla_ros.actions.token_actions.
    """

    vocabulary: int
    num_bins: int

    def __post_init__(self) -> None:
        _require(
            2 <= self.num_bins <= self.vocabulary,
            "decoder.tokens.num_bins",
            self.num_bins,
            "2 to the vocabulary",
        )


@dataclass(frozen=True)
class DiffusionSpec:
    """OpenVLA-OFT's diffusion head: denoising steps a look, and the seed of the noise that they
    start from.
    """

    num_steps: int
    seed: int

    def __post_init__(self) -> None:
        expected = f"1 to {NUM_TRAIN_STEPS}"
        _require(
            1 <= self.num_steps <= NUM_TRAIN_STEPS,
            "decoder.diffusion.num_steps",
            self.num_steps,
            expected,
        )


@dataclass(frozen=True)
class LatentSpec:
    """UniVLA's latent action tokens.

    num_tokens, top_k: shape of the noise that they are drawn with; seed: of that noise, null for
    the likeliest tokens. ensemble_length: 0, and the whole chunk is executed; else the length of
    the graph's chunk, of which one action is executed per look, averaged with what the looks before
    said of that moment. history_template: the prompt from the second look on, with {instruction}
    and {history}, the last look's tokens; null to use the plain prompt throughout.
    """

    num_tokens: int
    top_k: int
    seed: int | None
    ensemble_length: int
    history_template: str | None

    def __post_init__(self) -> None:
        template = self.history_template
        whole = template is None or all(
            template.count(name) == 1 for name in ("{instruction}", "{history}")
        )
        _require(
            whole,
            "decoder.latents.history_template",
            repr(template),
            "{instruction} and {history}, once each",
        )
        for name, lowest in (("num_tokens", 1), ("top_k", 1), ("ensemble_length", 0)):
            value = getattr(self, name)
            _require(lowest <= value <= 1024, f"decoder.latents.{name}", value, f"{lowest} to 1024")


@dataclass(frozen=True)
class DecoderSpec:
    """How the graph is run and what its outputs are.

    kind: "l1_chunk": once, `actions` come out. "action_tokens": once, `action_tokens` come out, see
    `tokens`. "diffusion": once per denoising step, `noise` comes out, see `diffusion`. "univla":
    once, with noise to draw tokens by, `actions` and `latent_tokens` come out, see `latents`.
    guessed: the two latter also take a `guess` of all tokens but the last, and are run until they
    confirm it.
    """

    kind: DecoderKind = "l1_chunk"
    tokens: TokenSpec | None = None
    diffusion: DiffusionSpec | None = None
    latents: LatentSpec | None = None
    guessed: bool = False

    def __post_init__(self) -> None:
        fits = not self.guessed or self.kind in ("action_tokens", "univla")
        _require(fits, "decoder.guessed", self.guessed, f"false with kind {self.kind}")
        needed = {"action_tokens": "tokens", "diffusion": "diffusion", "univla": "latents"}.get(
            self.kind
        )
        for name in ("tokens", "diffusion", "latents"):
            there = getattr(self, name) is not None
            expected = f"{'an object' if name == needed else 'null'} with kind {self.kind}"
            _require(
                there == (name == needed),
                f"decoder.{name}",
                "an object" if there else "null",
                expected,
            )


@dataclass(frozen=True)
class QuantizationSummary:
    """How the weights are stored; `method` "none" and 16 bits for a float policy."""

    method: str
    gates_sha256: str | None
    nominal_bits_per_weight: float
    stored_bits_per_weight: float
    weight_bytes: int
    float16_weight_bytes: int
    group_size: int | None


@dataclass(frozen=True)
class Manifest:
    """Everything in bundle.json but the schema version, the files' hashes and the identity."""

    family: str
    cameras: tuple[CameraSpec, ...]
    proprioception: ProprioceptionSpec | None
    prompt: PromptSpec
    actions: ActionSpec
    quantization: QuantizationSummary
    decoder: DecoderSpec = DecoderSpec()

    def __post_init__(self) -> None:
        names = tuple(camera.name for camera in self.cameras)
        _require(_unique(names), "cameras", list(names), "distinct names, at least one camera")
        one_by_one = self.decoder.kind == "action_tokens"
        one_by_one |= self.decoder.latents is not None and self.decoder.latents.ensemble_length > 0
        length = self.actions.chunk_length
        _require(
            length == 1 or not one_by_one,
            "actions.chunk_length",
            length,
            f"1 with decoder {self.decoder.kind}",
        )


@dataclass(frozen=True)
class Statistics:
    """Statistics of one vector in the training data, each float64 [D]; mask: which entries were
    normalised.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Bundle(Manifest):
    """A verified bundle. bundle_id: 16 hex digits that name its weights, gates, statistics and
    specification.
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
    """Copy `files` (name in the bundle -> path) and write the manifest; all or nothing. Returns the
    verified bundle.

    prove: called with the whole bundle under a temporary name; it may add files that are no part of
    the identity. If it raises, the bundle goes, and an earlier one in `directory` stays.
    """
    for name in files:
        _require(name in KNOWN_FILES, "bundle file", name, "one of " + ", ".join(KNOWN_FILES))
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
    """Read and check a bundle. QvlaError names the first thing that is missing, damaged or does not
    fit.
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
    manifest = parse(Manifest, body, MANIFEST_NAME)
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
    files = parse(dict[str, str], value, key)
    for name in REQUIRED_FILES:
        _require(name in files, key, f"no {name}", "the hashes of " + ", ".join(REQUIRED_FILES))
    for name in files:  # a fixed list also keeps paths out of the bundle
        _require(name in KNOWN_FILES, key, name, "only " + ", ".join(KNOWN_FILES))
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
    content = read_json(path)
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
        values = parse(kind, entry.get(name), f"statistics.json.{key}.{name}")
        _require(
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
    _require(
        ordered,
        f"statistics.json.{key}",
        "a low above its high",
        f"{low} <= {high} and min <= max everywhere",
    )
    return result


def _unique(names: tuple[str, ...]) -> bool:
    return len(names) > 0 and len(set(names)) == len(names) and all(names)
