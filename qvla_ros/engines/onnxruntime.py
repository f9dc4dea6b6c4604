"""ONNX Runtime: the engine of machines without a TensorRT plan, and the one that the tests run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from qvla_ros.engines.requirements import onnxruntime_error
from qvla_ros.engines.signature import TensorSpec, check_inputs
from qvla_ros.errors import NO_KNOWN_FIX, QvlaError

if TYPE_CHECKING:
    from qvla_ros.bundle import Bundle

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# The same policy on the same weights, arranged for unpacking them at load.
UNPACKED_GRAPH = "policy.unpacked.onnx"
WEIGHTS = ("unpacked", "packed_exact", "packed_int8")
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}


class OnnxRuntimeEngine:
    """One session on `policy.onnx`.

    weights: how memory holds the low-bit weights. "unpacked": as float32 from loading on, exact,
    with the speed and the memory of a float32 policy. "packed_exact": packed, and unpacked in each
    call, exact and slow. "packed_int8": packed, and each block of activations is rounded to int8
    (relative error near 5e-3): small memory. threads: of one operator; with None, ONNX Runtime
    takes all cores.
    """

    needs_warm_up = True

    def __init__(
        self,
        bundle: Bundle,
        provider: str = "cpu",
        threads: int | None = None,
        weights: str = "unpacked",
    ) -> None:
        _check_options(provider, threads, weights)
        unpacked = weights == "unpacked" and UNPACKED_GRAPH in bundle.files
        path = bundle.directory / (UNPACKED_GRAPH if unpacked else "policy.onnx")
        self._session = _open_session(path, PROVIDERS[provider], _session_options(threads, weights))
        self.name = f"onnxruntime {onnxruntime.__version__} {provider} {weights}"
        self._specs = [_spec(node) for node in self._session.get_inputs()]

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Runs once; inputs and outputs by name."""
        check_inputs(self._specs, inputs)
        names = [node.name for node in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))

    def close(self) -> None:
        """Free the session; `run` may not follow."""
        del self._session


def load(
    bundle: Bundle, provider: str = "cpu", threads: int | None = None, weights: str = "unpacked"
) -> OnnxRuntimeEngine:
    """See OnnxRuntimeEngine for the options."""
    return OnnxRuntimeEngine(bundle, provider=provider, threads=threads, weights=weights)


def _check_options(provider: str, threads: int | None, weights: str) -> None:
    if provider not in PROVIDERS:
        expected = f"one of {list(PROVIDERS)}"
        raise QvlaError("provider", repr(provider), expected, "use provider: cpu")
    if weights not in WEIGHTS:
        expected = f"one of {list(WEIGHTS)}"
        raise QvlaError("weights", repr(weights), expected, f"use weights: {WEIGHTS[0]}")
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        expected = "a whole number from 1 on, or none"
        raise QvlaError("threads", threads, expected, "leave it out to use every core")
    available = onnxruntime.get_available_providers()
    if PROVIDERS[provider] not in available:
        found = f"{provider} (here: {', '.join(available)})"
        fix = "pip install onnxruntime-gpu, or use cpu"
        raise QvlaError("provider", found, PROVIDERS[provider], fix)


def _open_session(
    path: Path, provider: str, options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    """Opens the graph at `path`. Raises QvlaError unless it really runs on `provider`."""
    try:
        session = onnxruntime.InferenceSession(
            path, options, providers=[provider], enable_fallback=False
        )
    except Exception as error:  # the pybind errors of ONNX Runtime share no narrower base
        raise _unopened(path, error) from error
    running = session.get_providers()[0]
    if running != provider:  # a provider whose libraries are missing only logs a warning
        fix = "install the CUDA and cuDNN libraries it needs, or use cpu"
        raise QvlaError("provider", running, provider, fix)
    return session


def _unopened(path: Path, error: Exception) -> QvlaError:
    """Why a graph does not open. Its files are whole by then: load_bundle has compared hashes."""
    if old := onnxruntime_error(onnxruntime.__version__):
        return old
    if "escapes model directory" in str(error):
        expected = "files of one folder: ONNX Runtime follows no link out of it"
        fix = f"copy the bundle with what its links lead to: cp -rL {path.parent} COPY"
        return QvlaError(str(path), "links to files elsewhere", expected, fix)
    is_damaged = "INVALID_PROTOBUF" in str(error)
    fix = "copy the bundle again: the file has changed" if is_damaged else NO_KNOWN_FIX
    return QvlaError(str(path), error, "a graph that ONNX Runtime loads", fix)


def _session_options(threads: int | None, weights: str) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    if weights == "unpacked":
        # DequantizeLinear then folds into a constant.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    else:
        # DequantizeLinear fuses with MatMul into a packed kernel. Its accuracy level is the
        # precision of the activations: 1 is float32, 4 is int8.
        level = "1" if weights == "packed_exact" else "4"
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level)
    return options


def _spec(node: onnxruntime.NodeArg) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return TensorSpec(node.name, np.dtype(_DTYPES[node.type]), shape)
