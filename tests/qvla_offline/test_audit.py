"""The audit counts what is there, and names a float graph that claims low bits.

It finds the weights in a plan too.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from qvla_offline.audit import Audit, audit_bundle, find_weight
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.cli import audit as verb
from qvla_offline.engine import build_plan
from qvla_offline.export.bundle import export_bundle
from qvla_offline.export.options import ExportOptions
from qvla_offline.gates import Gates, uniform
from qvla_ros.bundle import Manifest, load_bundle, save_bundle
from tests.support.random_model import random_model

LAYER = "language_model.model.layers.0.mlp.up_proj"


@pytest.fixture(scope="module")
def checkpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="module")
def bundle_dir(checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    layers = {
        n: rng.choice([0, 2, 4, 8, 16], len(m.weight))
        for n, m in quantization_targets(random_model()).items()
    }
    return export_bundle(
        checkpoint_dir, Gates(layers, "test"), tmp_path_factory.mktemp("bundle") / "mixed"
    )


def run_verb(bundle_dir: Path, *options: str) -> int:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.run(parser.parse_args(["--bundle", str(bundle_dir), *options]))


def total(audit: Audit) -> int:
    return audit.other_bytes + sum(sum(layer.graph_bytes.values()) for layer in audit.layers)


def test_every_byte_of_the_graph_is_counted_once(bundle_dir: Path) -> None:
    audit = audit_bundle(bundle_dir)
    assert total(audit) == load_bundle(bundle_dir).quantization.weight_bytes
    assert audit.complaints == []
    assert audit.unnamed == []


def test_an_intact_bundle_holds_exactly_what_was_promised(bundle_dir: Path, capsys) -> None:
    gated = [layer for layer in audit_bundle(bundle_dir).layers if layer.bits]
    assert len(gated) > 20
    assert all(sum(layer.graph_bytes.values()) == layer.promised_bytes for layer in gated)
    assert run_verb(bundle_dir) == 0
    out = capsys.readouterr().out
    assert LAYER in out
    assert "holds what its gates promise" in out


def test_a_float_graph_under_low_bit_gates_is_an_error(
    checkpoint_dir: Path, tmp_path: Path, capsys
) -> None:
    rows = {
        name: len(module.weight) for name, module in quantization_targets(random_model()).items()
    }
    promised = export_bundle(checkpoint_dir, uniform(rows, 8), tmp_path / "int8")
    held = export_bundle(checkpoint_dir, None, tmp_path / "float")
    bundle = load_bundle(promised)
    manifest = Manifest(**{name: getattr(bundle, name) for name in Manifest.__dataclass_fields__})
    files = {
        name: (promised if name == "gates.json" else held) / name
        for name in bundle.files
        if "unpacked" not in name
    }
    save_bundle(tmp_path / "false", manifest, files)
    assert run_verb(tmp_path / "false", "--totals") == 1
    out = capsys.readouterr().out
    assert f"BROKEN PROMISE {LAYER}: the gates promise" in out
    assert "larger than its gates promise" in out


def test_matrices_under_other_names_do_not_hide_absent_layers(
    bundle_dir: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(bundle_dir)
    model = onnx.load(bundle_dir / "policy.onnx")
    renamed = f"{LAYER}.weight.int8"
    for tensor in model.graph.initializer:
        tensor.name = "val_107" if tensor.name == renamed else tensor.name
    for node in model.graph.node:
        node.input[:] = ["val_107" if name == renamed else name for name in node.input]
    onnx.save(model, tmp_path / "policy.onnx")
    manifest = Manifest(**{name: getattr(bundle, name) for name in Manifest.__dataclass_fields__})
    files = {name: bundle_dir / name for name in bundle.files if name != "policy.onnx.data"}
    save_bundle(tmp_path / "renamed", manifest, {**files, "policy.onnx": tmp_path / "policy.onnx"})
    audit = audit_bundle(tmp_path / "renamed")
    assert audit.unnamed == ["val_107"]
    assert any("no layer's name" in complaint for complaint in audit.complaints)


def test_a_real_plan_keeps_low_bits_packed_and_the_audit_sees_it(
    checkpoint_dir: Path, bundle_dir: Path, tmp_path: Path
) -> None:
    gates = bundle_dir / "gates.json"
    export_bundle(
        checkpoint_dir, gates, tmp_path / "half", options=ExportOptions(compute_dtype="float16")
    )
    plan = build_plan(tmp_path / "half", flavour="rtx").name
    audit = audit_bundle(tmp_path / "half")
    found: Counter[str] = Counter()
    for layer in audit.layers:
        found.update(layer.plan_bytes[plan])
    codes: Counter[str] = Counter()
    for tensor in onnx.load(tmp_path / "half" / "policy.onnx").graph.initializer:
        codes[tensor.name.rpartition(".")[2]] += len(tensor.raw_data)
    assert found["int4"] == codes["int4"] > 0
    assert found["int8"] == codes["int8"] > 0
    assert found["float32"] == 0  # float16 compute keeps float16 weights
    assert found["not found"] < 0.02 * sum(found.values())
    assert audit.unpacked == []


def test_a_weight_is_found_packed_transposed_or_unpacked() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(-8, 8, (64, 6)).astype(np.int8)
    scales = rng.random((2, 6), dtype=np.float32) + 0.5
    import ml_dtypes

    weight = numpy_helper.from_array(codes.astype(ml_dtypes.int4), "layer.weight.int4")
    scale = numpy_helper.from_array(scales, "layer.weight.int4.scale")
    values = codes * np.repeat(scales, 32, axis=0)
    padding = rng.bytes(100)
    assert find_weight(weight, scale, padding + weight.raw_data) == ("int4", 192)
    assert find_weight(weight, scale, padding + codes.T.tobytes()) == ("int8", 384)
    assert find_weight(weight, scale, padding + values.astype(np.float16).tobytes()) == (
        "float16",
        768,
    )
    assert find_weight(weight, scale, values.T.copy().tobytes()) == ("float32", 1536)
    assert find_weight(weight, scale, padding) == ("not found", 192)


def test_low_bits_that_a_plan_holds_as_floats_are_an_error(
    bundle_dir: Path, tmp_path: Path, monkeypatch
) -> None:
    import shutil

    from qvla_ros.engines.plan import PlanSidecar, graph_hashes, sidecar_path, write_sidecar

    bundle = load_bundle(shutil.copytree(bundle_dir, tmp_path / "bundle"))
    tensors = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load(bundle.directory / "policy.onnx").graph.initializer
    }
    values = (
        tensors[f"{LAYER}.weight.int8"].astype(np.float32) * tensors[f"{LAYER}.weight.int8.scale"]
    )
    plan = bundle.directory / "engines" / "unpacked.plan"
    plan.parent.mkdir()
    plan.write_bytes(values.astype(np.float16).tobytes())
    sidecar = PlanSidecar(
        "rtx", "1", ("86",), graph_hashes(bundle), (2, 32, 64), "", plan.stat().st_size, 1.0
    )
    write_sidecar(sidecar_path(plan), sidecar)
    assert audit_bundle(bundle.directory).complaints == [
        f"{LAYER}.weight.int8: unpacked.plan holds it as float16"
    ]
    assert run_verb(bundle.directory, "--totals") == 1


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_a_bundle_made_of_links_is_audited_like_the_one_they_lead_to(
    bundle_dir: Path, tmp_path: Path, link: str
) -> None:
    for file in bundle_dir.iterdir():
        if file.is_file() and link == "hard":
            (tmp_path / file.name).hardlink_to(file)
        elif file.is_file():
            (tmp_path / file.name).symlink_to(file)
    assert audit_bundle(tmp_path) == audit_bundle(bundle_dir)
