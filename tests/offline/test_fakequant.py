from __future__ import annotations

import numpy as np
import pytest
import torch
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.fakequant import fake_quantize, target_shapes
from qvla_offline.gates import Gates, uniform
from qvla_offline.quantizers import QuantizationScheme, quantize_layer, released_rtn
from safetensors.torch import load_file

from qvla_ros.errors import QvlaError

SCHEME = QuantizationScheme(16)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="module")
def gates(checkpoint):
    generator = np.random.default_rng(0)
    shapes = target_shapes(checkpoint)
    return Gates({n: generator.choice([0, 2, 4, 8, 16], r).astype(np.uint8) for n, (r, _) in shapes.items()}, "random")


def test_targets_come_from_the_configuration_alone(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    shapes = target_shapes(checkpoint)
    assert {n: (s[0], s[1]) for n, s in shapes.items()} == {
        n: (len(weights[f"{n}.weight"]), weights[f"{n}.weight"][0].numel()) for n in shapes
    }
    assert not any(name.startswith(("projector", "action_head")) or "lm_head" in name for name in shapes)


def test_target_weights_are_what_export_stores_and_all_else_is_unchanged(tmp_path, checkpoint, gates):
    out = fake_quantize(checkpoint, gates, tmp_path / "out", SCHEME, dtype=torch.float32)
    before, after = load_file(checkpoint / "model.safetensors"), load_file(out / "model.safetensors")
    assert set(before) == set(after)
    for name, tensor in before.items():
        layer = name.removesuffix(".weight")
        if layer in gates.layers:
            stored = quantize_layer(tensor.flatten(1), gates.layers[layer], SCHEME).dequantize()
            assert torch.equal(after[name].flatten(1), stored)
        else:
            assert torch.equal(after[name], tensor)
    for file in checkpoint.iterdir():
        if file.suffix != ".safetensors":
            assert (out / file.name).read_bytes() == file.read_bytes()
    assert (out / "gates.json").is_file()


def test_the_dtype_and_layout_of_the_checkpoint_are_kept(tmp_path, checkpoint, gates):
    out = fake_quantize(checkpoint, gates, tmp_path / "out", SCHEME)
    before, after = load_file(checkpoint / "model.safetensors"), load_file(out / "model.safetensors")
    assert {n: (t.dtype, t.shape) for n, t in before.items()} == {n: (t.dtype, t.shape) for n, t in after.items()}


def test_released_mode_rounds_each_row_in_the_dtype_of_the_checkpoint(tmp_path, checkpoint, gates):
    out = fake_quantize(checkpoint, gates, tmp_path / "out", SCHEME, mode="released")
    before, after = load_file(checkpoint / "model.safetensors"), load_file(out / "model.safetensors")
    for name, row_bits in gates.layers.items():
        weight = before[f"{name}.weight"].flatten(1)
        rows = [released_rtn(row[None], int(b), floor=1e-8)[0] for row, b in zip(weight, row_bits, strict=True)]
        assert torch.equal(after[f"{name}.weight"].flatten(1), torch.stack(rows))


def test_sixteen_bits_everywhere_changes_no_float16_weight(tmp_path, checkpoint):
    gates = uniform({name: rows for name, (rows, _) in target_shapes(checkpoint).items()}, 16)
    out = fake_quantize(checkpoint, gates, tmp_path / "out")
    before, after = load_file(checkpoint / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_wrong_gates_wrong_mode_and_writing_over_the_source_leave_nothing_behind(tmp_path, checkpoint, gates):
    name = next(iter(gates.layers))
    short = Gates(gates.layers | {name: gates.layers[name][:-1]}, "short")
    with pytest.raises(QvlaError, match=name):
        fake_quantize(checkpoint, short, tmp_path / "out", SCHEME)
    with pytest.raises(QvlaError, match="mode"):
        fake_quantize(checkpoint, gates, tmp_path / "out", SCHEME, mode="other")
    with pytest.raises(QvlaError, match="out_dir"):
        fake_quantize(checkpoint, gates, checkpoint, SCHEME)
    assert not list(tmp_path.iterdir())
