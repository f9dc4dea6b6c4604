"""`qvla inspect DIR`: what a bundle holds, in words, after every file's hash was checked."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from qvla_ros.bundle import Bundle, CameraSpec, load_bundle
from qvla_ros.doctor.parity import read_parity
from qvla_ros.safety import action_limits

HELP = "what a bundle holds and whether it is intact"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="bundle directory")
    parser.add_argument("--json", action="store_true", help="print the specification as JSON")


def run(args: argparse.Namespace) -> int:
    bundle = load_bundle(args.bundle)
    if args.json:
        print(json.dumps(_as_json(bundle), indent=1))
        return 0
    for label, text in describe(bundle):
        print(f"{label:<16}{text}")
    return 0


def describe(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Lines of (label, text); the label is empty where a line continues the one above."""
    yield "bundle", f"{bundle.bundle_id}  {bundle.directory}"
    yield "family", bundle.family
    yield from _labelled("camera", [_camera(camera) for camera in bundle.cameras])
    if bundle.proprioception is not None:
        state = bundle.proprioception
        yield "state", f"{', '.join(state.names)} (normalised by {state.normalization})"
    yield "prompt", repr(bundle.prompt.template)
    yield "decoder", bundle.decoder.describe()
    yield from _actions(bundle)
    yield from _quantization(bundle)
    yield from _labelled(
        "file", [f"{name:<18}{_size(bundle.directory / name)}  SHA-256 ok" for name in bundle.files]
    )
    if (parity := read_parity(bundle)) is not None:
        yield (
            "parity",
            f"{len(parity.observations)} observations with the answers of {parity.engine}",
        )
    plans = sorted((bundle.directory / "engines").glob("*.plan"))
    yield from _labelled(
        "plan", [f"{plan.name}  {_size(plan)}" for plan in plans] or ["none built for this bundle"]
    )


def _camera(camera: CameraSpec) -> str:
    steps = ["rotate 180"] if camera.rotate_180 else []
    steps += [f"bicubic to {camera.bicubic_size}"] if camera.bicubic_size is not None else []
    steps += [f"JPEG {camera.jpeg_quality}"] if camera.jpeg_quality is not None else []
    steps += [f"Lanczos to {camera.lanczos_size}"]
    steps += (
        [f"centre crop {camera.center_crop_area:g}"] if camera.center_crop_area is not None else []
    )
    steps += [f"bicubic to {camera.input_size}"] if camera.input_size != camera.lanczos_size else []
    return (
        f"{camera.name} {camera.width}x{camera.height}: {', '.join(steps)}, "
        f"{len(camera.normalizations)} backbone(s)"
    )


def _actions(bundle: Bundle) -> Iterator[tuple[str, str]]:
    actions = bundle.actions
    period_ms = 1e3 * actions.control_period_s
    yield (
        "actions",
        f"{actions.chunk_length} of {actions.kind}, {period_ms:g} ms apart, frame "
        f"{actions.frame or 'none'}",
    )
    low, high = action_limits(bundle)
    for name, unit, bottom, top in zip(actions.names, actions.units, low, high, strict=True):
        yield "", f"{name:<22}{bottom:g} to {top:g} {unit}"


def _quantization(bundle: Bundle) -> Iterator[tuple[str, str]]:
    summary = bundle.quantization
    share = (
        summary.weight_bytes / summary.float16_weight_bytes
        if summary.float16_weight_bytes
        else float("nan")
    )
    bits = (
        f"{summary.stored_bits_per_weight:.2f} bits a weight stored, "
        f"{summary.nominal_bits_per_weight:.2f} nominal"
    )
    yield "weights", f"{summary.weight_bytes / 1e6:.1f} MB, {share:.0%} of float16; {bits}"
    gates = "no gates" if summary.gates_sha256 is None else f"gates {summary.gates_sha256[:16]}"
    groups = (
        "one scale a row"
        if summary.group_size is None
        else f"one scale a group of {summary.group_size}"
    )
    yield (
        "quantization",
        "none" if summary.method == "none" else f"{summary.method}, {gates}, {groups}",
    )


def _labelled(label: str, texts: list[str]) -> Iterator[tuple[str, str]]:
    for index, text in enumerate(texts):
        yield (label if index == 0 else ""), text


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:10.3f} MB"


def _as_json(bundle: Bundle) -> dict[str, object]:
    content = asdict(bundle)
    del content["statistics"]
    return {**content, "directory": str(bundle.directory)}
