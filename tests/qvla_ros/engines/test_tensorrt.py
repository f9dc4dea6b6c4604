"""The engine that runs plans, with a stand-in for the GPU: no test machine has one.

What is pinned is our side: which buffers are made, filled, read and freed, in what order, and what
is refused. That the calls exist under these names is checked against the real module where it is
installed.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qvla_ros.bundle import Bundle, load_bundle, sha256_of
from qvla_ros.engines import load_engine, tensorrt
from qvla_ros.engines.plan import PlanSidecar, graph_hashes, plan_path, sidecar_path, write_sidecar
from qvla_ros.errors import QvlaError

VERSION = "10.3.0"
SHAPES = {
    "pixel_values": (1, 6, 16, 16),
    "input_ids": (1, -1),
    "proprio": (1, 8),
    "actions": (1, 4, 7),
}
LONGEST_PROMPT = 8


class HostGpu:
    """Device memory that is host memory."""

    compute_capability = "87"
    stream = 7

    def __init__(self, device: int = 0) -> None:
        self.memory: dict[int, ctypes.Array] = {}

    def use(self) -> None: ...

    def allocate(self, size_bytes: int) -> int:
        buffer = ctypes.create_string_buffer(size_bytes)
        self.memory[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def free(self, address: int) -> None:
        del self.memory[address]

    def upload(self, array: np.ndarray, address: int) -> None:
        assert array.nbytes <= len(self.memory[address])
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def download(self, address: int, array: np.ndarray) -> None:
        assert array.nbytes <= len(self.memory[address])
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def synchronize(self) -> None: ...

    def close(self) -> None:
        assert not self.memory


class FakeContext:
    """Copies the first seven proprioceptive numbers into every action."""

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.shapes = {name: shape for name, shape in SHAPES.items() if -1 not in shape}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        proprio = np.ctypeslib.as_array(
            (ctypes.c_float * 8).from_address(self.addresses["proprio"])
        )
        actions = np.ctypeslib.as_array(
            (ctypes.c_float * 28).from_address(self.addresses["actions"])
        )
        actions.reshape(4, 7)[:] = proprio[:7]
        return stream == HostGpu.stream


class FakeEngine:
    num_io_tensors = len(SHAPES)

    def get_tensor_name(self, index: int) -> str:
        return list(SHAPES)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "output" if name == "actions" else "input"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return SHAPES[name]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name="INT64" if name == "input_ids" else "FLOAT")

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [
            tuple(size if n < 0 else n for n in SHAPES[name]) for size in (2, 4, LONGEST_PROMPT)
        ]

    def create_execution_context(self) -> FakeContext:
        return FakeContext()


def fake_tensorrt(accepts: bool = True) -> Any:
    runtime = SimpleNamespace(
        deserialize_cuda_engine=lambda plan: FakeEngine() if accepts else None
    )
    logger = SimpleNamespace(WARNING=1)
    return SimpleNamespace(
        __name__="tensorrt",
        __version__=VERSION,
        Logger=type("Logger", (), {"WARNING": 1, "__init__": lambda self, level: None}),
        Runtime=lambda log: runtime if log is not logger else None,
        TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"),
    )


@pytest.fixture
def bundle(make_bundle, tmp_path: Path) -> Bundle:
    """A bundle with a plan for the fake GPU."""
    bundle = load_bundle(make_bundle(tmp_path / "bundle"))
    plan = plan_path(bundle.directory, "tensorrt", VERSION, ("87",))
    plan.parent.mkdir()
    plan.write_bytes(b"plan")
    sidecar = PlanSidecar(
        "tensorrt", VERSION, ("87",), graph_hashes(bundle), (2, 4, 8), sha256_of(plan), 4, 1.0
    )
    write_sidecar(sidecar_path(plan), sidecar)
    return bundle


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "Gpu", HostGpu)
    monkeypatch.setattr(tensorrt, "import_flavour", lambda flavour: ("tensorrt", fake_tensorrt()))


def inputs(prompt_tokens: int) -> dict[str, np.ndarray]:
    return {
        "pixel_values": np.zeros((1, 6, 16, 16), np.float32),
        "input_ids": np.ones((1, prompt_tokens), np.int64),
        "proprio": np.linspace(-1, 1, 8, dtype=np.float32)[None],
    }


def test_a_run_copies_in_executes_and_copies_out(bundle: Bundle, gpu: None) -> None:
    engine = load_engine(bundle, "tensorrt")
    for length in (5, 2, LONGEST_PROMPT):
        given = inputs(length)
        actions = engine.run(given)["actions"]
        np.testing.assert_array_equal(
            actions, np.broadcast_to(given["proprio"][:, None, :7], (1, 4, 7))
        )
    assert engine.name == f"tensorrt {VERSION} sm87"
    engine.close()  # HostGpu.close finds every buffer freed


def test_a_prompt_outside_the_profile_is_refused(bundle: Bundle, gpu: None) -> None:
    engine = load_engine(bundle, "tensorrt")
    with pytest.raises(
        QvlaError,
        match=r"input_ids: got \[1, 9\]; expected \[1, 2\] to \[1, 8\].*--max_prompt_tokens",
    ):
        engine.run(inputs(LONGEST_PROMPT + 1))


def test_a_plan_that_does_not_load_names_the_rebuild_command(
    bundle: Bundle, gpu: None, monkeypatch
) -> None:
    monkeypatch.setattr(
        tensorrt, "import_flavour", lambda flavour: ("tensorrt", fake_tensorrt(accepts=False))
    )
    with pytest.raises(
        QvlaError, match=r"refused by tensorrt 10\.3\.0.*qvla build --bundle .* --flavour tensorrt"
    ):
        load_engine(bundle, "tensorrt")


def test_without_a_gpu_or_without_tensorrt_the_message_says_so(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: None)
    with pytest.raises(QvlaError, match=r"TensorRT: got not installed.*tensorrt-rtx"):
        load_engine(bundle, "tensorrt")
    monkeypatch.setattr(tensorrt, "import_flavour", lambda flavour: ("tensorrt", fake_tensorrt()))
    monkeypatch.setattr(ctypes, "CDLL", raise_os_error)
    with pytest.raises(QvlaError, match=r"GPU: .*expected the NVIDIA driver library"):
        load_engine(bundle, "tensorrt")


def raise_os_error(name: str) -> None:
    raise OSError(f"{name}: cannot open shared object file")


def test_an_unknown_flavour_is_refused(bundle: Bundle) -> None:
    with pytest.raises(QvlaError, match="flavour: got 'trt'"):
        load_engine(bundle, "tensorrt", flavour="trt")


def test_the_calls_exist_in_the_real_module() -> None:
    import tensorrt_rtx as trt

    for fake, real in ((FakeContext, trt.IExecutionContext), (FakeEngine, trt.ICudaEngine)):
        names = [name for name in vars(fake) if not name.startswith("_")]
        assert [name for name in names if not hasattr(real, name)] == []
    assert trt.Runtime.deserialize_cuda_engine
    assert {"INPUT", "OUTPUT"} <= set(dir(trt.TensorIOMode))
    assert {"FLOAT", "HALF", "INT64"} <= set(dir(trt.DataType))
