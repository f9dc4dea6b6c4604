"""The file of trained scales: what comes back from it, and what it does not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.quantization.quantizer import quantize_layer
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.quantization.trained_scales import (
    UNTRAINED,
    TrainedLayer,
    TrainedScales,
    codes_sha256,
    read_trained_scales,
    sources_of,
    trained_scales_for,
    write_trained_scales,
)
from qvla_ros.errors import QvlaError

SCHEME = QuantizationScheme(16)
BITS = {"a": np.array([2, 4, 8, 0, 16], dtype=np.uint8)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("scales") / "tiny")


def quantized(seed: int = 0):
    weight = torch.randn(5, 32, generator=torch.Generator().manual_seed(seed))
    return quantize_layer(weight, BITS["a"], SCHEME)


def trained(checkpoint) -> TrainedScales:
    layer = quantized()
    scales = {bits: codes.scales * 1.5 for bits, codes in layer.codes.items()}
    of_layer = TrainedLayer(codes_sha256(layer), scales, torch.arange(5.0))
    return TrainedScales({"a": of_layer}, sources_of(checkpoint, BITS, SCHEME, None), {"steps": 3})


def test_what_is_written_comes_back_and_a_layer_takes_it(checkpoint, tmp_path):
    before = trained(checkpoint)
    path = tmp_path / "scales.safetensors"
    write_trained_scales(path, before)
    after = trained_scales_for(path, checkpoint, BITS, SCHEME, None)
    assert (after.sources, after.settings) == (before.sources, before.settings)
    own = quantized()
    layer = after.put_into("a", own)
    for bits, codes in layer.codes.items():
        assert torch.equal(codes.scales, own.codes[bits].scales * 1.5)
        assert torch.equal(codes.codes, own.codes[bits].codes)
    assert layer.bias_correction.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    again = tmp_path / "again.safetensors"
    write_trained_scales(again, before)
    assert again.read_bytes() == path.read_bytes()


def test_layers_that_were_not_trained_stay_as_they_are(checkpoint):
    own = quantized()
    assert trained(checkpoint).put_into("b", own) is own
    assert UNTRAINED.put_into("a", own) is own
    assert trained_scales_for(None, checkpoint, BITS, SCHEME, None) is UNTRAINED


def test_scales_are_refused_for_what_they_were_not_trained_with(checkpoint, tmp_path):
    path = tmp_path / "scales.safetensors"
    write_trained_scales(path, trained(checkpoint))
    other = write_random_checkpoint(tmp_path / "other", seed=1)
    wider = {"a": np.full(5, 8)}
    for what, found in {
        "checkpoint": (other, BITS, SCHEME),
        "bits": (checkpoint, wider, SCHEME),
        "scheme": (checkpoint, BITS, replace(SCHEME, group_size=32)),
    }.items():
        with pytest.raises(QvlaError, match=f"^trained_scales .*other {what}"):
            trained_scales_for(path, *found, None)
    with pytest.raises(QvlaError, match=r"scales.safetensors: a: .* other codes"):
        read_trained_scales(path).put_into("a", quantized(seed=1))


def test_other_files_are_refused_by_name(checkpoint, tmp_path):
    path = tmp_path / "scales.safetensors"
    with pytest.raises(QvlaError, match=r"^trained_scales: .*scales.safetensors"):
        read_trained_scales(path)
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(QvlaError, match="an intact file of trained scales"):
        read_trained_scales(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(QvlaError, match="schema_version: got None"):
        read_trained_scales(path)


@pytest.mark.parametrize("broken", [float("nan"), 0.0, -1.0, float("inf")])
def test_scales_that_are_no_positive_numbers_are_refused(checkpoint, tmp_path, broken):
    path = tmp_path / "scales.safetensors"
    scales = trained(checkpoint)
    scales.layers["a"].scales[4][0, 0] = broken
    write_trained_scales(path, scales)
    assert "a/scales_4" in load_file(path)
    with pytest.raises(QvlaError, match=r"scales.safetensors: a/scales_4"):
        read_trained_scales(path)
