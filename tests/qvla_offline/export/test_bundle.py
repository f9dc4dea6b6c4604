"""Checkpoint and gates to a bundle: what the manifest says is what the files hold."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.checkpoints.openvla_oft import OpenVLAOFT
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.cli import export as verb
from qvla_offline.export.bundle import export_bundle
from qvla_offline.export.options import ExportOptions
from qvla_offline.fakequant import fake_quantize
from qvla_offline.gates import Gates, read_gates, write_gates
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.robot import LIBERO, camera_specs, read_robot
from qvla_ros.bundle import load_bundle, sha256_of
from qvla_ros.doctor.parity import parity_actions, read_parity
from qvla_ros.engines import load_engine
from qvla_ros.errors import QvlaError
from qvla_ros.observation import Observation
from qvla_ros.policy import load_policy

ROOT = Path(__file__).parents[3]
HALF = ExportOptions(compute_dtype="float16")


@pytest.fixture(scope="module")
def checkpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="module")
def gates(model: OpenVLAOFT) -> Gates:
    rng = np.random.default_rng(0)
    layers = {
        n: rng.choice([0, 2, 4, 8, 16], len(m.weight))
        for n, m in quantization_targets(model).items()
    }
    return Gates(layers, "test", scheme=asdict(QuantizationScheme(group_size=32)))


@pytest.fixture(scope="module")
def bundle_dir(
    checkpoint_dir: Path, gates: Gates, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return export_bundle(checkpoint_dir, gates, tmp_path_factory.mktemp("bundle") / "mixed")


def test_a_bundle_brings_answers_for_other_machines_to_compare_with(bundle_dir: Path) -> None:
    policy = load_policy(bundle_dir, "onnxruntime", threads=1)
    parity = read_parity(policy.bundle)
    assert parity is not None
    np.testing.assert_array_equal(parity_actions(policy, parity.observations), parity.actions)


def test_the_manifest_carries_the_checkpoints_and_the_robots_facts(
    bundle_dir: Path, checkpoint_dir: Path
) -> None:
    bundle = load_bundle(bundle_dir)
    checkpoint = load_checkpoint(checkpoint_dir)
    assert [(c.name, c.height, c.width, c.rotate_180) for c in bundle.cameras] == [
        ("agentview", 256, 256, True),
        ("wrist", 256, 256, True),
    ]
    for camera in bundle.cameras:
        assert camera.input_size == checkpoint.config.vision[0].image_size
        assert (camera.jpeg_quality, camera.center_crop_area) == (95, 0.9)
        # as the released evaluations have it
        assert (camera.bicubic_size, camera.resize_size) == (
            None,
            224,
        )
        assert camera.normalizations == checkpoint.normalizations
    assert bundle.prompt == checkpoint.prompt
    assert (bundle.actions.chunk_length, bundle.actions.normalization) == (8, "q99")
    np.testing.assert_array_equal(
        bundle.statistics["action"].low, checkpoint.statistics["action"]["q01"]
    )


def test_images_are_resized_once_where_the_checkpoint_says_so_and_first_of_all_where_the_robot_does(
    checkpoint_dir: Path,
) -> None:
    checkpoint = load_checkpoint(checkpoint_dir)
    size = checkpoint.config.vision[0].image_size
    for resize_size, expected in ((size, None), (96, 96)):
        stated = replace(checkpoint, config=replace(checkpoint.config, resize_size=resize_size))
        cameras = camera_specs(stated, replace(LIBERO, bicubic_size=256))
        assert {(camera.bicubic_size, camera.resize_size) for camera in cameras} == {
            (256, expected)
        }


def test_gates_in_the_bundle_are_those_of_the_graph_and_never_below_what_was_asked(
    bundle_dir: Path, gates: Gates
) -> None:
    exported = read_gates(bundle_dir / "gates.json")
    summary = load_bundle(bundle_dir).quantization
    assert summary.gates_sha256 == sha256_of(bundle_dir / "gates.json")
    assert (summary.method, summary.group_size, exported.scheme["group_size"]) == ("test", 32, 32)
    assert all((exported.layers[name] >= bits).all() for name, bits in gates.layers.items())
    shapes = {t.name: t.dims for t in onnx.load(bundle_dir / "policy.onnx").graph.initializer}
    bits = exported.layers["language_model.model.layers.0.mlp.gate_proj"]
    for container, rows in {
        "float16": bits == 16,
        "int8": bits == 8,
        "int4": (bits == 2) | (bits == 4),
    }.items():
        assert (
            shapes[f"language_model.model.layers.0.mlp.gate_proj.weight.{container}"][1]
            == rows.sum()
        )


def test_sizes_in_the_manifest_are_those_of_the_files(
    bundle_dir: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    mixed = load_bundle(bundle_dir).quantization
    stored = [t for t in onnx.load(bundle_dir / "policy.onnx").graph.initializer]
    assert mixed.weight_bytes == sum(len(t.raw_data) for t in stored)
    assert 2 < mixed.nominal_bits_per_weight < mixed.stored_bits_per_weight < 16
    plain = load_bundle(export_bundle(checkpoint_dir, None, tmp_path / "float")).quantization
    assert (plain.method, plain.gates_sha256, plain.group_size) == ("none", None, None)
    assert plain.nominal_bits_per_weight == plain.stored_bits_per_weight == 16.0
    assert mixed.weight_bytes < plain.weight_bytes
    assert plain.float16_weight_bytes == mixed.float16_weight_bytes


def test_both_graphs_of_a_bundle_read_one_data_file_and_agree(bundle_dir: Path) -> None:
    bundle = load_bundle(bundle_dir)
    inputs = {
        "pixel_values": np.ones((1, 12, 28, 28), np.float32),
        "input_ids": np.arange(1, 20)[None],
    }
    inputs["proprio"] = np.zeros((1, 8), np.float32)
    outputs = []
    for weights, graph in (("unpacked", "policy.unpacked.onnx"), ("packed_exact", "policy.onnx")):
        tensors = onnx.load(bundle_dir / graph, load_external_data=False).graph.initializer
        assert {e.value for t in tensors for e in t.external_data if e.key == "location"} == {
            "policy.onnx.data"
        }
        outputs.append(
            load_engine(bundle, "onnxruntime", threads=1, weights=weights).run(inputs)["actions"]
        )
    np.testing.assert_allclose(*outputs, atol=1e-5)


def check_same_actions(bundle_dir: Path, checkpoint_dir: Path) -> None:
    """The bundle and the checkpoint in torch, on one random observation."""
    rng = np.random.default_rng(0)
    inputs = {
        "pixel_values": rng.standard_normal((1, 12, 28, 28), dtype=np.float32),
        "input_ids": rng.integers(3, 100, (1, 20)),
        "proprio": rng.uniform(-1, 1, (1, 8)).astype(np.float32),
    }
    model = load_checkpoint(checkpoint_dir).model
    expected = model(
        PolicyInputs(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    ).numpy()
    for weights in ("unpacked", "packed_exact"):
        engine = load_engine(load_bundle(bundle_dir), "onnxruntime", threads=1, weights=weights)
        np.testing.assert_allclose(engine.run(inputs)["actions"], expected, atol=1e-4, rtol=0)


def test_the_fake_quant_checkpoint_of_the_bundles_gates_gives_the_bundles_actions(
    bundle_dir: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    gates = read_gates(bundle_dir / "gates.json")
    fake_quantize(checkpoint_dir, gates, tmp_path / "fake", dtype=torch.float32)
    check_same_actions(bundle_dir, tmp_path / "fake")


@pytest.mark.parametrize("quantizer", ["clip_search", "rtn", "released"])
def test_gates_that_fill_no_tiles_give_the_same_actions_in_the_bundle_and_in_fake_quant(
    checkpoint_dir: Path, gates: Gates, tmp_path: Path, quantizer: str
) -> None:
    scheme = QuantizationScheme(group_size=32, quantizer=quantizer)
    bundle = export_bundle(checkpoint_dir, gates, tmp_path / "bundle", scheme)
    exported = read_gates(bundle / "gates.json")
    assert QuantizationScheme(**exported.scheme) == scheme
    for name, bits in gates.layers.items():
        np.testing.assert_array_equal(exported.layers[name], bits)
    fake_quantize(checkpoint_dir, gates, tmp_path / "fake", scheme, dtype=torch.float32)
    check_same_actions(bundle, tmp_path / "fake")


def test_rows_are_promoted_only_when_a_tile_is_asked_for_and_then_it_is_printed(
    checkpoint_dir: Path, gates: Gates, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = export_bundle(checkpoint_dir, gates, tmp_path / "plain")
    assert "promoted" not in capsys.readouterr().out
    filled = export_bundle(
        checkpoint_dir, gates, tmp_path / "filled", options=ExportOptions(tile=8)
    )
    printed = capsys.readouterr().out
    stored = read_gates(filled / "gates.json")
    changed = sum(int((stored.layers[n] != bits).sum()) for n, bits in gates.layers.items())
    assert changed > 0
    counts = re.findall(r"(\d+) from \d+ to \d+ bits", printed)
    assert sum(map(int, counts)) == changed
    [added] = re.findall(r"; ([+-][\d,]+) bytes", printed)
    sizes = [target_bytes(directory, gates) for directory in (plain, filled)]
    assert int(added.replace(",", "")) == sizes[1] - sizes[0]


def target_bytes(directory: Path, gates: Gates) -> int:
    """Of the gated layers' weights and scales in the graph."""
    tensors = onnx.load(directory / "policy.onnx").graph.initializer
    return sum(
        len(tensor.raw_data)
        for tensor in tensors
        if tensor.name.partition(".weight.")[0] in gates.layers
    )


def test_the_robot_side_runs_the_bundle(bundle_dir: Path) -> None:
    policy = load_policy(bundle_dir, "onnxruntime", threads=1)
    images = {c.name: np.full((c.height, c.width, 3), 90, np.uint8) for c in policy.bundle.cameras}
    middle = 0.5 * (
        policy.bundle.statistics["proprio"].low + policy.bundle.statistics["proprio"].high
    )
    prediction = policy.infer(Observation(images, middle, "pick up the milk", 0, {}))
    assert prediction.actions.shape == (8, 7)
    policy.close()


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"options": ExportOptions(compute_dtype="bfloat16")}, "compute_dtype"),
        ({"options": ExportOptions(tile=0)}, "tile"),
        ({"robot": replace(LIBERO, cameras=LIBERO.cameras[:1])}, "robot cameras"),
        (
            {"robot": replace(LIBERO, actions=replace(LIBERO.actions, names=("x", "y")))},
            r"robot actions\.names",
        ),
        ({"unnorm_key": "absent"}, "unnorm_key"),
    ],
)
def test_bad_options_are_named_and_leave_nothing_behind(
    checkpoint_dir: Path, tmp_path: Path, options: dict, key: str
) -> None:
    written: list[str] = []
    with pytest.raises(QvlaError, match=key):
        export_bundle(checkpoint_dir, None, tmp_path / "bundle", **options, progress=written.append)
    assert (list(tmp_path.iterdir()), written) == ([], [])


def test_a_directory_with_other_files_is_refused_before_anything_is_written(
    checkpoint_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    written: list[str] = []
    with pytest.raises(QvlaError, match="other files in it"):
        export_bundle(checkpoint_dir, None, tmp_path, progress=written.append)
    assert ([path.name for path in tmp_path.iterdir()], written) == (["thesis.tex"], [])


@pytest.mark.parametrize("earlier", [True, False])
def test_a_policy_that_cannot_be_run_leaves_no_bundle_and_an_earlier_one_stays(
    checkpoint_dir: Path, tmp_path: Path, earlier: bool
) -> None:
    source = Path(shutil.copytree(checkpoint_dir, tmp_path / "checkpoint"))
    out = tmp_path / "out" / "bundle"
    if earlier:
        export_bundle(source, None, out)
    before = {file.name: sha256_of(file) for file in out.glob("*")}
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()  # it is mapped
    # finite, but what is made of it is not
    tensors["projector.fc1.bias"].fill_(torch.finfo(torch.float16).max)
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(QvlaError, match="actions: got .*finite"):
        export_bundle(source, None, out, options=HALF)
    assert {file.name: sha256_of(file) for file in out.glob("*")} == before
    assert list((tmp_path / "out").iterdir()) == [out] * earlier
    if earlier:
        assert read_parity(load_bundle(out)) is not None


def test_scales_that_the_compute_dtype_would_round_are_refused(
    checkpoint_dir: Path, gates: Gates, tmp_path: Path
) -> None:
    wide = QuantizationScheme(group_size=32, scale_dtype="float32")
    with pytest.raises(QvlaError, match=r"scheme\.scale_dtype.*float16"):
        export_bundle(checkpoint_dir, gates, tmp_path / "bundle", wide, HALF)
    assert not list(tmp_path.iterdir())
    export_bundle(checkpoint_dir, None, tmp_path / "float", wide, HALF)  # no row has a scale


def test_bad_statistics_are_named_by_the_checkpoints_own_file(
    checkpoint_dir: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(checkpoint_dir, tmp_path / "checkpoint"))
    file = source / "dataset_statistics.json"
    file.write_text(file.read_text().replace('"q99"', '"q98"'))
    with pytest.raises(QvlaError, match=r"dataset_statistics\.json: .*action\.q99"):
        export_bundle(source, None, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == [source]


def test_gates_of_a_wrong_length_are_refused(
    checkpoint_dir: Path, gates: Gates, tmp_path: Path
) -> None:
    name = next(iter(gates.layers))
    short = replace(gates, layers={**gates.layers, name: gates.layers[name][:-1]})
    write_gates(tmp_path / "gates.json", short)
    with pytest.raises(QvlaError, match="bit-widths"):
        export_bundle(checkpoint_dir, tmp_path / "gates.json", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_the_example_robot_file_is_liberos_arm(tmp_path: Path) -> None:
    example = ROOT / "config" / "robots" / "libero" / "trained_on.yaml"
    assert read_robot(example) == LIBERO
    broken = tmp_path / "robot.yaml"
    broken.write_text(
        example.read_text().replace("control_period_s: 0.05", "control_period_s: fast")
    )
    with pytest.raises(QvlaError, match=r"actions\.control_period_s: got 'fast'"):
        read_robot(broken)


def test_the_verb_takes_the_released_option_names(
    checkpoint_dir: Path, gates: Gates, tmp_path: Path, capsys
) -> None:
    import argparse

    write_gates(tmp_path / "gates.json", gates)
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    options = {"--pretrained_checkpoint": checkpoint_dir, "--gates_path": tmp_path / "gates.json"}
    options |= {"--out_dir": tmp_path / "bundle", "--compute_dtype": "float16", "--group_size": 64}
    assert (
        verb.run(parser.parse_args([str(part) for pair in options.items() for part in pair])) == 0
    )
    assert "bits per weight" in capsys.readouterr().out
    assert load_bundle(tmp_path / "bundle").quantization.group_size == 64
    assert (
        json.loads((tmp_path / "bundle" / "gates.json").read_text())["scheme"]["group_size"] == 64
    )


def test_a_value_of_the_checkpoint_that_no_bundle_may_have_is_corrected_there(tmp_path):
    checkpoint = write_random_checkpoint(tmp_path / "checkpoint", "openvla")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "n_action_bins": 100_000}))
    with pytest.raises(QvlaError, match=r"num_bins: got 100000.*correct it in .*config\.json"):
        export_bundle(checkpoint, None, tmp_path / "bundle")
