"""Builds a TensorRT plan from the bundle's ONNX graph, with TensorRT-RTX or with TensorRT proper.

TensorRT-RTX compiles for desktop GPUs (Ampere, Ada, Blackwell) on a machine without one. TensorRT
(Jetson, data centre) builds for the GPU of its own machine. Both networks are strongly typed: the
graph sets every precision, and the builder keeps it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from qvla_ros.atomic import atomic_file
from qvla_ros.bundle import load_bundle, sha256_of
from qvla_ros.engines.cuda import Gpu
from qvla_ros.engines.plan import PlanSidecar, graph_hashes, plan_path, sidecar_path, write_sidecar
from qvla_ros.engines.tensorrt import import_flavour
from qvla_ros.errors import QvlaError

PROMPT_TOKENS = (2, 32, 128)  # shortest, tuned-for and longest prompt; a LIBERO prompt has 20 to 60
DYNAMIC_INPUT = "input_ids"


def build_plan(
    bundle_dir: str | Path,
    flavour: str | None = None,
    compute_capability: str | None = None,
    prompt_tokens: tuple[int, int, int] = PROMPT_TOKENS,
) -> Path:
    """Builds the plan of one bundle and writes it, with its sidecar, under `engines/`.

    Returns the plan's path.
    flavour: "rtx" or "tensorrt"; None takes the one installed, TensorRT-RTX first.
    compute_capability: for RTX, a comma list such as "86,89", or None for a plan that runs on any
    GPU it knows from 8.0 on; for TensorRT, None or that of the GPU here. QvlaError for whatever the
    parser or the builder refuses, with its messages.
    """
    bundle = load_bundle(bundle_dir)
    name, trt = import_flavour(flavour)
    if name == "rtx" and bundle.decoder.unrolled and bundle.quantization.method != "none":
        found = f"{bundle.family}, unrolled and quantized"
        expected = "a graph that uses each weight once"
        raise QvlaError(
            f"{bundle_dir} for {trt.__name__}", found, expected, "export again with --guessed"
        )
    capabilities = _target(name, compute_capability)
    messages: list[str] = []
    started_s = time.monotonic()
    plan = _compile(
        trt,
        bundle.directory / "policy.onnx",
        capabilities if name == "rtx" else (),
        prompt_tokens,
        messages,
    )
    build_s = time.monotonic() - started_s
    path = plan_path(bundle.directory, name, trt.__version__, capabilities)
    with atomic_file(path) as temporary:
        temporary.write_bytes(plan)
    sidecar = PlanSidecar(
        flavour=name,
        version=trt.__version__,
        compute_capabilities=capabilities,
        graph=graph_hashes(bundle),
        prompt_tokens=prompt_tokens,
        plan_sha256=sha256_of(path),
        plan_bytes=path.stat().st_size,
        build_s=round(build_s, 2),
    )
    with atomic_file(sidecar_path(path)) as temporary:
        write_sidecar(temporary, sidecar)
    return path


def _target(flavour: str, compute_capability: str | None) -> tuple[str, ...]:
    """The GPUs to build for, as ("86", "89"); empty for RTX's portable plan."""
    asked = tuple(
        sorted(
            {part.strip() for part in (compute_capability or "").split(",")} - {""}, key=_as_number
        )
    )
    if flavour == "rtx":
        return asked
    here = Gpu().compute_capability
    if asked not in ((), (here,)):
        fix = "build on the machine that will run it, or use --flavour rtx for desktop GPUs"
        raise QvlaError(
            "compute_capability", ",".join(asked), f"{here}, the GPU of this machine", fix
        )
    return (here,)


def _as_number(capability: str) -> int:
    if not capability.isdigit():
        expected = "digits without a dot, as 86 or 86,89"
        raise QvlaError(
            "compute_capability",
            repr(capability),
            expected,
            "print it with `nvidia-smi --query-gpu=compute_cap`",
        )
    return int(capability)


def _compile(
    trt: Any,
    graph: Path,
    capabilities: tuple[str, ...],
    prompt_tokens: tuple[int, int, int],
    messages: list[str],
) -> bytes:
    logger = _collecting_logger(trt, messages)
    builder = trt.Builder(logger)
    # TensorRT 11 knows no other kind of network and may drop the flag
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        errors = [_describe(parser.get_error(index)) for index in range(parser.num_errors)]
        fix = "export again with two_bit_storage int4; else the graph uses what this TensorRT lacks"
        raise QvlaError(
            str(graph),
            "; ".join(errors),
            f"a graph that {trt.__name__} {trt.__version__} parses",
            fix,
        )
    config = builder.create_builder_config()
    _add_profile(builder, config, prompt_tokens)
    _set_capabilities(trt, config, capabilities)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = "; ".join(messages[-5:]) or "no reason given"
        fix = "read its messages; another --compute_capability or --compute_dtype may do"
        raise QvlaError(f"{trt.__name__} {trt.__version__}", reason, "a built plan", fix)
    return bytes(plan)


def _add_profile(builder: Any, config: Any, prompt_tokens: tuple[int, int, int]) -> None:
    shortest, usual, longest = prompt_tokens
    if not 1 < shortest <= usual <= longest:
        expected = "shortest <= tuned for <= longest, from 2 on"
        raise QvlaError("prompt_tokens", prompt_tokens, expected, f"use {PROMPT_TOKENS}")
    profile = builder.create_optimization_profile()
    profile.set_shape(DYNAMIC_INPUT, (1, shortest), (1, usual), (1, longest))
    config.add_optimization_profile(profile)


def _set_capabilities(trt: Any, config: Any, capabilities: tuple[str, ...]) -> None:
    if not capabilities:
        return
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        value = getattr(trt.ComputeCapability, f"SM{capability}", None)
        if value is None:
            known = [name[2:] for name in dir(trt.ComputeCapability) if name.startswith("SM")]
            fix = (
                "choose one of them; Jetson and data-centre GPUs need --flavour tensorrt "
                "on the machine itself"
            )
            raise QvlaError("compute_capability", capability, f"one of {', '.join(known)}", fix)
        config.set_compute_capability(value, index)


def _collecting_logger(trt: Any, messages: list[str]) -> Any:
    """A logger that keeps warnings and errors for the exception, instead of printing them."""

    class CollectingLogger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                messages.append(message)

    return CollectingLogger()


def _describe(error: Any) -> str:
    return f"{error.node_name() or 'graph'} ({error.node_operator() or '-'}): {error.desc()}"
