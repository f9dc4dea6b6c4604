"""Runs TensorRT plans of both flavours.

They are TensorRT-RTX (`tensorrt_rtx`, desktop GPUs) and TensorRT >= 10.3 (Jetson, servers).

The two Python APIs agree in all that is used here. Written against them and against a plan built
for real; which GPUs have run it is in docs/measured.md (none so far).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qvla_ros.bundle import sha256_of
from qvla_ros.engines.cuda import Gpu
from qvla_ros.engines.plan import FLAVOURS, PlanSidecar, graph_hashes, list_plans
from qvla_ros.engines.signature import TensorSpec, check_inputs
from qvla_ros.errors import QvlaError

if TYPE_CHECKING:
    from pathlib import Path

    from qvla_ros.bundle import Bundle

_DTYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "INT32": np.int32}


class TensorRTEngine:
    """One plan on one GPU.

    Inputs and outputs are copied through device buffers of the largest shape in the plan's profile.
    flavour: "rtx" or "tensorrt", None for the installed one. device: index of the GPU.
    """

    needs_warm_up = True

    def __init__(self, bundle: Bundle, flavour: str | None = None, device: int = 0) -> None:
        flavour, trt = import_flavour(flavour)
        self._gpu = Gpu(device)
        plan = choose_plan(bundle, flavour, trt.__version__, self._gpu.compute_capability)
        self._buffers: dict[str, int] = {}
        self._logger = trt.Logger(trt.Logger.WARNING)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            fix = rebuild_command(bundle, flavour, self._gpu.compute_capability)
            raise QvlaError(
                str(plan), f"refused by {trt.__name__} {trt.__version__}", "a plan it can load", fix
            )
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._inputs = [
            self._spec(n)
            for n in names
            if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT
        ]
        self._outputs = [
            self._spec(n)
            for n in names
            if self._engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT
        ]
        self._longest = {
            spec.name: self._engine.get_tensor_profile_shape(spec.name, 0) for spec in self._inputs
        }
        self._allocate()
        self.name = f"{trt.__name__} {trt.__version__} sm{self._gpu.compute_capability}"

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Runs once and waits; inputs and outputs by name."""
        check_inputs(self._inputs, inputs)
        self._gpu.use()
        uploaded = []  # the copies are queued: these arrays must outlive them
        for spec in self._inputs:
            array = np.ascontiguousarray(inputs[spec.name])
            self._check_profile(spec.name, array)
            self._context.set_input_shape(spec.name, array.shape)
            self._gpu.upload(array, self._buffers[spec.name])
            uploaded.append(array)
        outputs = {
            s.name: np.empty(tuple(self._context.get_tensor_shape(s.name)), s.dtype)
            for s in self._outputs
        }
        if not self._context.execute_async_v3(self._gpu.stream):
            raise QvlaError(
                "TensorRT",
                "execution refused",
                "a run of the plan",
                "read TensorRT's own message above",
            )
        for name, array in outputs.items():
            self._gpu.download(self._buffers[name], array)
        self._gpu.synchronize()
        return outputs

    def close(self) -> None:
        """Free the plan and the device memory; `run` may not follow."""
        self._gpu.use()
        del self._context, self._engine, self._runtime
        for address in self._buffers.values():
            self._gpu.free(address)
        self._gpu.close()

    def _allocate(self) -> None:
        for spec in self._inputs:
            self._context.set_input_shape(spec.name, self._longest[spec.name][2])
        for spec in (*self._inputs, *self._outputs):
            shape = tuple(self._context.get_tensor_shape(spec.name))
            self._buffers[spec.name] = self._gpu.allocate(int(np.prod(shape)) * spec.dtype.itemsize)
            self._context.set_tensor_address(spec.name, self._buffers[spec.name])

    def _spec(self, name: str) -> TensorSpec:
        shape = tuple(
            None if size < 0 else int(size) for size in self._engine.get_tensor_shape(name)
        )
        return TensorSpec(name, np.dtype(_DTYPES[self._engine.get_tensor_dtype(name).name]), shape)

    def _check_profile(self, name: str, array: NDArray[np.generic]) -> None:
        shortest, _, longest = (tuple(shape) for shape in self._longest[name])
        fits = all(
            low <= size <= high
            for low, size, high in zip(shortest, array.shape, longest, strict=True)
        )
        if not fits:
            expected = f"{list(shortest)} to {list(longest)}"
            fix = "shorten the instruction, or build with a longer --max_prompt_tokens"
            raise QvlaError(f"engine input {name}", list(array.shape), expected, fix)


def load(bundle: Bundle, flavour: str | None = None, device: int = 0) -> TensorRTEngine:
    """See TensorRTEngine for the options."""
    return TensorRTEngine(bundle, flavour=flavour, device=device)


def import_flavour(flavour: str | None) -> tuple[str, Any]:
    """The flavour's name and its Python module; None takes the first that is installed."""
    if flavour is not None and flavour not in FLAVOURS:
        raise QvlaError(
            "flavour",
            repr(flavour),
            f"one of {list(FLAVOURS)}",
            "leave it out to take the installed one",
        )
    for name in [flavour] if flavour else FLAVOURS:
        if find_spec(FLAVOURS[name]) is not None:
            try:
                return name, import_module(FLAVOURS[name])
            except (ImportError, OSError) as error:
                fix = "install the libraries it needs (on a Jetson: sudo apt install tensorrt)"
                raise QvlaError(FLAVOURS[name], error, "a TensorRT that imports", fix) from error
    fix = (
        "pip install tensorrt-rtx-cu13 on a desktop; on a Jetson: sudo apt install "
        "python3-libnvinfer"
    )
    raise QvlaError(
        "TensorRT",
        "not installed",
        f"the module {FLAVOURS.get(flavour or '', 'tensorrt_rtx or tensorrt')}",
        fix,
    )


def choose_plan(bundle: Bundle, flavour: str, version: str, compute_capability: str) -> Path:
    """The bundle's plan for this flavour, version, GPU (as "87") and graph.

    QvlaError if there is none: it says why each plan is unfit, and how to build one.
    """
    reasons = []
    for plan, sidecar in list_plans(bundle.directory).items():
        reason = mismatch(sidecar, bundle, flavour, version, compute_capability)
        if reason is None and sha256_of(plan) != sidecar.plan_sha256:
            reason = "the file is damaged"
        if reason is None:
            return plan
        reasons.append(f"{plan.name}: {reason}")
    found = "; ".join(reasons) or f"no plan under {bundle.directory / 'engines'}"
    expected = f"a plan for {flavour} {version} and compute capability {compute_capability}"
    raise QvlaError(
        "TensorRT plan", found, expected, rebuild_command(bundle, flavour, compute_capability)
    )


def mismatch(
    sidecar: PlanSidecar, bundle: Bundle, flavour: str, version: str, compute_capability: str
) -> str | None:
    """Returns why this plan must not be run here, or None."""
    if (sidecar.flavour, sidecar.version) != (flavour, version):
        return f"built by {sidecar.flavour} {sidecar.version}"
    if not sidecar.runs_on(compute_capability):
        return (
            "built for compute capability "
            f"{', '.join(sidecar.compute_capabilities) or '8.0 and above'}"
        )
    if sidecar.graph != graph_hashes(bundle):
        return "built from another graph"
    return None


def rebuild_command(bundle: Bundle, flavour: str, compute_capability: str) -> str:
    """The `qvla build` command for a plan that fits; TensorRT builds for its machine's own GPU."""
    target = f" --compute_capability {compute_capability}" if flavour == "rtx" else ""
    return f"qvla build --bundle {bundle.directory} --flavour {flavour}{target}"
