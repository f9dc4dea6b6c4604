"""Engines are chosen by name, refuse what they do not know, and never stand in for one another."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from qvla_ros.bundle import load_bundle
from qvla_ros.engines import (
    BACKENDS,
    ENGINES,
    EngineEntry,
    backend_help,
    load_engine,
    register_engine,
)
from qvla_ros.engines.onnxruntime import _open_session
from qvla_ros.engines.requirements import onnxruntime_error
from qvla_ros.engines.signature import TensorSpec, check_inputs
from qvla_ros.errors import QvlaError
from qvla_ros.policy import WARM_UP_RUNS, load_policy

INPUTS = {
    "pixel_values": np.zeros((1, 6, 16, 16), np.float32),
    "input_ids": np.ones((1, 5), np.int64),
    "proprio": np.linspace(-1, 1, 8, dtype=np.float32)[None],
}


def test_an_unknown_backend_is_answered_with_the_list(bundle_dir: Path) -> None:
    with pytest.raises(QvlaError, match=r"'openvino'.*" + ", ".join(BACKENDS)):
        load_engine(load_bundle(bundle_dir), "openvino")


@pytest.mark.parametrize("weights", ["unpacked", "packed_exact", "packed_int8"])
def test_onnx_runtime_runs_the_graph_and_says_how(bundle_dir: Path, weights: str) -> None:
    engine = load_engine(load_bundle(bundle_dir), "onnxruntime", threads=1, weights=weights)
    actions = engine.run(INPUTS)["actions"]
    np.testing.assert_array_equal(
        actions, np.broadcast_to(INPUTS["proprio"][:, None, :7], (1, 4, 7))
    )
    assert engine.name == f"onnxruntime {onnxruntime.__version__} cpu {weights}"
    engine.close()


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"provider": "rocm"}, "provider"),
        ({"weights": "int3"}, "weights"),
        ({"threads": 0}, "threads"),
        ({"thread": 2}, "options of backend onnxruntime"),
    ],
)
def test_bad_options_are_named(bundle_dir: Path, options: dict, key: str) -> None:
    with pytest.raises(QvlaError, match=key):
        load_engine(load_bundle(bundle_dir), "onnxruntime", **options)


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder as a cache of downloads makes it: links to files that lie elsewhere."""
    value = numpy_helper.from_array(np.ones(64, np.float32), "value")
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, [64])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["value"], ["out"])], "g", [], [output], [value]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    blobs = tmp_path / "blobs"
    folder = tmp_path / "bundle"
    blobs.mkdir()
    folder.mkdir()
    save(
        model,
        blobs / "policy.onnx",
        save_as_external_data=True,
        location="policy.onnx.data",
        size_threshold=0,
    )
    for name in ("policy.onnx", "policy.onnx.data"):
        own = tmp_path / f"{name}.blob"
        own.mkdir()
        (blobs / name).rename(own / "file")
        (folder / name).symlink_to(own / "file")
    return folder


def test_a_bundle_of_links_is_told_to_be_copied_with_what_they_lead_to(linked: Path) -> None:
    options = onnxruntime.SessionOptions()
    with pytest.raises(QvlaError, match="got links to files elsewhere") as refused:
        _open_session(linked / "policy.onnx", "CPUExecutionProvider", options)
    command = refused.value.fix.partition(": ")[2].replace("COPY", str(linked.parent / "copy"))
    subprocess.run(command.split(), check=True)
    _open_session(linked.parent / "copy" / "policy.onnx", "CPUExecutionProvider", options)


def test_an_onnx_runtime_that_is_too_old_is_named_and_others_keep_their_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(QvlaError, match=r"doesn't exist.*Fix: the cause is not known"):
        _open_session(tmp_path / "policy.onnx", "CPUExecutionProvider", None)
    monkeypatch.setattr(onnxruntime, "__version__", "1.17.3")
    with pytest.raises(QvlaError, match=r"ONNX Runtime: got 1.17.3; expected 1.19 or later"):
        _open_session(tmp_path / "policy.onnx", "CPUExecutionProvider", None)


@pytest.mark.parametrize(
    ("version", "is_old"),
    [("1.17.3", True), ("1.18.1", True), ("1.19.0", False), ("1.32.0", False), ("2.0", False)],
)
def test_versions_are_compared_as_numbers(version: str, is_old: bool) -> None:
    assert (onnxruntime_error(version) is not None) is is_old
    assert onnxruntime_error("main") is None


def test_a_missing_gpu_is_an_error_and_not_a_cpu_session(bundle_dir: Path, monkeypatch) -> None:
    bundle = load_bundle(bundle_dir)
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(QvlaError, match=r"provider: got cuda .*CUDAExecutionProvider"):
            load_engine(bundle, "onnxruntime", provider="cuda")

    class FallenBack:
        """Acts as ONNX Runtime when the provider is compiled in but its libraries do not load.

        It then gives a CPU session.
        """

        def __init__(self, *arguments: object, **options: object) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", FallenBack)
    with pytest.raises(
        QvlaError, match="provider: got CPUExecutionProvider; expected CUDAExecutionProvider"
    ):
        load_engine(bundle, "onnxruntime", provider="cuda")


def test_a_damaged_graph_is_refused(bundle_dir: Path, make_bundle, tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path / "bundle"))
    (bundle.directory / "policy.onnx").write_bytes(b"not a graph")
    with pytest.raises(QvlaError, match=r"policy\.onnx.*copy the bundle again"):
        load_engine(bundle, "onnxruntime")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"proprio": None}, "engine inputs"),
        ({"wrist": np.zeros(1)}, "engine inputs"),
        (
            {"proprio": np.zeros((1, 8))},
            r"proprio: got float64 \[1, 8\]; expected float32 \[1, 8\]",
        ),
        ({"proprio": np.zeros((1, 7), np.float32)}, r"proprio: got float32 \[1, 7\]"),
        (
            {"input_ids": np.zeros((1, 0), np.int64)},
            r"input_ids: got int64 \[1, 0\]; expected int64 \[1, \*\]",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_named(changed: dict, message: str) -> None:
    specs = [
        TensorSpec("pixel_values", np.dtype(np.float32), (1, 6, 16, 16)),
        TensorSpec("input_ids", np.dtype(np.int64), (1, None)),
        TensorSpec("proprio", np.dtype(np.float32), (1, 8)),
    ]
    check_inputs(specs, INPUTS)
    inputs = {name: array for name, array in {**INPUTS, **changed}.items() if array is not None}
    with pytest.raises(QvlaError, match=message):
        check_inputs(specs, inputs)


def test_a_fake_engine_fails_once_in_the_way_that_its_fault_file_says(
    bundle_dir: Path, tmp_path: Path
) -> None:
    trigger = tmp_path / "fault"
    engine = load_engine(load_bundle(bundle_dir), "zero", fault_file=str(trigger))
    assert np.isfinite(engine.run(INPUTS)["actions"]).all()
    trigger.write_text("raise")
    with pytest.raises(RuntimeError, match="as asked for by"):
        engine.run(INPUTS)
    trigger.write_text("nan")
    assert np.isnan(engine.run(INPUTS)["actions"]).all()
    trigger.write_text("0.01")
    assert np.isfinite(engine.run(INPUTS)["actions"]).all()
    assert not trigger.exists()


TOY = """
import numpy as np

class HalfEngine:
    name = "half"
    needs_warm_up = False

    def __init__(self, shape, value):
        self._actions = np.full(shape, value, np.float32)

    def run(self, inputs):
        return {"actions": self._actions}

    def close(self):
        pass

def load(bundle, value=0.5):
    return HalfEngine((1, bundle.actions.chunk_length, len(bundle.actions.names)), value)
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineEntry]:
    """An engine that is one file and one registration."""
    (tmp_path / "half_engine.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EngineEntry("half", "half_engine", "one half everywhere", is_fake=True)
    register_engine(entry)
    yield entry
    del ENGINES[entry.name]


def test_an_engine_is_added_by_one_file_and_one_registration(
    toy: EngineEntry, bundle_dir: Path
) -> None:
    assert toy.name in BACKENDS
    assert "half" in backend_help()
    engine = load_engine(load_bundle(bundle_dir), toy.name)
    assert (engine.run(INPUTS)["actions"] == 0.5).all()
    given = load_engine(load_bundle(bundle_dir), toy.name, value=0.25)
    assert (given.run(INPUTS)["actions"] == 0.25).all()
    with pytest.raises(QvlaError, match="options of backend half"):
        load_engine(load_bundle(bundle_dir), toy.name, values=1)


def test_a_name_is_registered_once(toy: EngineEntry) -> None:
    with pytest.raises(QvlaError, match="engine name: got 'half'"):
        register_engine(toy)


@pytest.mark.parametrize(("backend", "runs"), [("onnxruntime", WARM_UP_RUNS), ("zero", 0)])
def test_only_an_engine_that_needs_it_is_warmed_up(
    bundle_dir: Path, backend: str, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_policy(bundle_dir, backend)
    run = Mock(wraps=policy.engine.run)
    monkeypatch.setattr(policy.engine, "run", run)
    policy.warm_up()
    assert run.call_count == runs
