"""ONNX to a TensorRT plan, built for real by TensorRT-RTX, which needs no GPU to compile."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorrt_rtx

from qvla_offline.checkpoints.openvla_oft import OpenVLAOFT
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.cli import build as verb
from qvla_offline.engine import build_plan
from qvla_offline.export.bundle import export_bundle
from qvla_offline.export.options import ExportOptions
from qvla_offline.gates import Gates
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.bundle import load_bundle, sha256_of
from qvla_ros.engines import load_engine
from qvla_ros.engines.plan import list_plans, sidecar_path, write_sidecar
from qvla_ros.engines.tensorrt import choose_plan, mismatch
from qvla_ros.errors import QvlaError
from tests.support.random_model import random_model

VERSION = tensorrt_rtx.__version__


@pytest.fixture(scope="module")
def checkpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


def gates(model: OpenVLAOFT, scheme: QuantizationScheme) -> Gates:
    rng = np.random.default_rng(0)
    layers = {
        n: rng.choice([0, 2, 4, 8, 16], len(m.weight))
        for n, m in quantization_targets(model).items()
    }
    return Gates(layers, "test", scheme=vars(scheme))


@pytest.fixture(scope="module")
def built(checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(bundle directory, its plan for compute capability 8.6 and 8.9); shared, do not change it."""
    out = tmp_path_factory.mktemp("bundle") / "mixed"
    export_bundle(checkpoint_dir, gates(random_model(), QuantizationScheme()), out)
    return out, build_plan(out, flavour="rtx", compute_capability="89,86")


@pytest.fixture
def own(built: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A copy that the test may change."""
    bundle = shutil.copytree(built[0], tmp_path / "bundle")
    return bundle, bundle / "engines" / built[1].name


def test_the_graph_that_onnx_runtime_runs_is_the_one_that_is_built(
    built: tuple[Path, Path],
) -> None:
    bundle_dir, plan = built
    bundle = load_bundle(bundle_dir)
    assert plan.name == f"rtx-{VERSION}-sm86-sm89.plan"
    sidecar = list_plans(bundle_dir)[plan]
    assert (sidecar.flavour, sidecar.version, sidecar.compute_capabilities) == (
        "rtx",
        VERSION,
        ("86", "89"),
    )
    assert sidecar.graph == {
        name: bundle.files[name] for name in ("policy.onnx", "policy.onnx.data")
    }
    assert (sidecar.plan_sha256, sidecar.plan_bytes) == (sha256_of(plan), plan.stat().st_size)
    assert mismatch(sidecar, bundle, "rtx", VERSION, "89") is None
    engine = load_engine(bundle, "onnxruntime", threads=1)
    size = bundle.cameras[0].input_size
    channels = 12
    pixels = np.zeros((1, channels, size, size), np.float32)
    actions = engine.run(
        {
            "pixel_values": pixels,
            "input_ids": np.ones((1, 9), np.int64),
            "proprio": np.zeros((1, 8), np.float32),
        }
    )
    assert np.isfinite(actions["actions"]).all()


def test_float16_compute_builds_a_plan_for_any_gpu(
    checkpoint_dir: Path, tmp_path: Path, capsys
) -> None:
    export_bundle(
        checkpoint_dir,
        gates(random_model(), QuantizationScheme()),
        tmp_path / "half",
        options=ExportOptions(compute_dtype="float16"),
    )
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    assert (
        verb.run(
            parser.parse_args(["--bundle", str(tmp_path / "half"), "--max_prompt_tokens", "64"])
        )
        == 0
    )
    ((plan, sidecar),) = list_plans(tmp_path / "half").items()
    assert str(plan) in capsys.readouterr().out
    assert (sidecar.compute_capabilities, sidecar.prompt_tokens[2]) == ((), 64)
    assert sidecar.runs_on("120")
    assert not sidecar.runs_on("75")


@pytest.mark.parametrize(
    ("capability", "message"),
    [
        ("87", "one of .*86"),
        ("8.6", "digits"),
        ("75", "int4"),
    ],  # Jetson Orin; a dot; a GPU without INT4
)
def test_a_gpu_that_cannot_be_built_for_is_named(
    built: tuple[Path, Path], capability: str, message: str
) -> None:
    before = sorted(built[0].rglob("*"))
    with pytest.raises(QvlaError, match=message):
        build_plan(built[0], flavour="rtx", compute_capability=capability)
    assert sorted(built[0].rglob("*")) == before


def test_what_the_parser_refuses_is_reported_with_the_tensors_name(
    checkpoint_dir: Path, tmp_path: Path
) -> None:
    scheme = QuantizationScheme(two_bit_storage="int2")
    export_bundle(checkpoint_dir, gates(random_model(), scheme), tmp_path / "bundle")
    with pytest.raises(QvlaError, match=r"weight\.int2.*two_bit_storage int4"):
        build_plan(tmp_path / "bundle", flavour="rtx")
    assert not (tmp_path / "bundle" / "engines").exists()


def test_prompt_lengths_out_of_order_are_refused(built: tuple[Path, Path]) -> None:
    with pytest.raises(QvlaError, match="prompt_tokens"):
        build_plan(built[0], flavour="rtx", prompt_tokens=(2, 64, 32))


def test_a_plan_is_chosen_by_flavour_version_gpu_and_graph(own: tuple[Path, Path]) -> None:
    bundle = load_bundle(own[0])
    plan = own[1]
    assert choose_plan(bundle, "rtx", VERSION, "86") == plan
    for flavour, version, capability, message in (
        (
            "tensorrt",
            "10.3.0",
            "87",
            f"built by rtx.*qvla build --bundle {own[0]} --flavour tensorrt$",
        ),
        ("rtx", "9.9", "86", "built by rtx"),
        (
            "rtx",
            VERSION,
            "120",
            "built for compute capability 86, 89.*--flavour rtx --compute_capability 120$",
        ),
    ):
        with pytest.raises(QvlaError, match=message):
            choose_plan(bundle, flavour, version, capability)


def test_a_plan_of_another_graph_or_a_damaged_one_is_refused(own: tuple[Path, Path]) -> None:
    bundle = load_bundle(own[0])
    plan = own[1]
    sidecar = list_plans(own[0])[plan]
    write_sidecar(
        sidecar_path(plan), replace(sidecar, graph={**sidecar.graph, "policy.onnx": "0" * 64})
    )
    with pytest.raises(QvlaError, match="another graph"):
        choose_plan(bundle, "rtx", VERSION, "86")
    write_sidecar(sidecar_path(plan), sidecar)
    plan.write_bytes(plan.read_bytes()[:-1])
    with pytest.raises(QvlaError, match="damaged"):
        choose_plan(bundle, "rtx", VERSION, "86")
    plan.unlink()
    with pytest.raises(QvlaError, match="no plan under"):
        choose_plan(bundle, "rtx", VERSION, "86")
