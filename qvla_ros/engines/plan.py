"""TensorRT plans in a bundle: their paths, and the sidecar with a plan's machine and graph."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qvla_ros.strict_json import parse, read_json

if TYPE_CHECKING:
    from qvla_ros.bundle import Bundle

# flavour -> Python module, in order of preference
FLAVOURS = {
    "rtx": "tensorrt_rtx",
    "tensorrt": "tensorrt",
}
GRAPH_FILES = ("policy.onnx", "policy.onnx.data")


@dataclass(frozen=True)
class PlanSidecar:
    """`<plan>.json`. A plan runs with the flavour, version and kind of GPU that it was built for.

    compute_capabilities: e.g. ("86", "89"); empty for a TensorRT-RTX plan that any GPU from 8.0 on
    may take. graph: SHA-256 by file name of the graph and its weights. prompt_tokens: shortest,
    tuned-for and longest prompt.
    """

    flavour: str
    version: str
    compute_capabilities: tuple[str, ...]
    graph: dict[str, str]
    prompt_tokens: tuple[int, int, int]
    plan_sha256: str
    plan_bytes: int
    build_s: float

    def runs_on(self, compute_capability: str) -> bool:
        """Whether a GPU of `compute_capability` (as "86") may take this plan."""
        listed = self.compute_capabilities
        return (
            compute_capability in listed
            if listed
            else self.flavour == "rtx" and int(compute_capability) >= 80
        )


def plan_path(
    directory: Path, flavour: str, version: str, compute_capabilities: tuple[str, ...]
) -> Path:
    """`engines/<flavour>-<version>-<sm>.plan` of the bundle in `directory`."""
    target = "-".join(f"sm{capability}" for capability in compute_capabilities) or "portable"
    return directory / "engines" / f"{flavour}-{version}-{target}.plan"


def sidecar_path(plan: Path) -> Path:
    """The JSON file beside `plan`."""
    return plan.with_name(plan.name + ".json")


def write_sidecar(path: Path, sidecar: PlanSidecar) -> None:
    """Writes `sidecar` to `path`, which the caller has made temporary or knows to be free."""
    path.write_text(json.dumps(asdict(sidecar), indent=1) + "\n", encoding="utf-8")


def list_plans(directory: Path) -> dict[Path, PlanSidecar]:
    """Every plan under `engines/` of the bundle in `directory` that has a sidecar, by path."""
    fix = "delete it and run `qvla build` again"
    sidecars = sorted(directory.glob("engines/*.plan.json"))
    read = {p.with_suffix(""): parse(PlanSidecar, read_json(p, fix), str(p), fix) for p in sidecars}
    return {plan: sidecar for plan, sidecar in read.items() if plan.is_file()}


def graph_hashes(bundle: Bundle) -> dict[str, str]:
    """SHA-256 of the graph's files, as the manifest has them."""
    return {name: bundle.files[name] for name in GRAPH_FILES if name in bundle.files}
