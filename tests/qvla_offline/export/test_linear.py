"""One linear layer of mixed bit-widths: the graph computes what the dequantized weight would."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qvla_offline.export.graph import GraphBuilder, packed_bytes
from qvla_offline.export.linear import emit_linear, opset_for
from qvla_offline.quantization.layer import QuantizedLayer
from qvla_offline.quantization.quantizer import quantize_layer
from qvla_offline.quantization.scheme import QuantizationScheme


def write_linear(
    path: Path, layer: QuantizedLayer, bias: np.ndarray | None, compute: str = "float32"
) -> onnx.ModelProto:
    rows, inputs = layer.shape
    dtype = np.dtype(compute).type
    with GraphBuilder(
        path.with_suffix(".data"), compute, opset_for(layer.scheme.two_bit_storage)
    ) as graph:
        x = graph.input("x", dtype, [1, "T", inputs])
        graph.output(emit_linear(graph, x, "layer", layer, bias), "y", dtype, [1, "T", rows])
        onnx.save(graph.model(), path)
    onnx.checker.check_model(path, full_check=True)
    return onnx.load(path, load_external_data=False)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    bits=st.lists(st.sampled_from([0, 2, 4, 8, 16]), min_size=1, max_size=40),
    inputs=st.integers(1, 200),
    scheme=st.sampled_from(
        [QuantizationScheme(), QuantizationScheme(group_size=32, two_bit_storage="int2")]
    ),
    with_bias=st.booleans(),
)
def test_any_mix_of_bits_equals_the_dequantized_weight(
    tmp_path: Path,
    run_graph,
    bits: list[int],
    inputs: int,
    scheme: QuantizationScheme,
    with_bias: bool,
) -> None:
    torch.manual_seed(len(bits) * 1000 + inputs)
    layer = quantize_layer(torch.randn(len(bits), inputs), bits, scheme)
    bias = torch.randn(len(bits)).numpy() if with_bias else None
    write_linear(tmp_path / "layer.onnx", layer, bias)
    x = torch.randn(1, 3, inputs)
    expected = torch.nn.functional.linear(
        x, layer.dequantize(), None if bias is None else torch.from_numpy(bias)
    )
    y = run_graph(tmp_path / "layer.onnx", {"x": x.numpy()})["y"]
    np.testing.assert_allclose(
        y, expected.numpy(), atol=1e-5 * max(1.0, float(expected.abs().max()))
    )


@pytest.mark.parametrize("bits", [[4, 8, 0], [0, 0, 0]])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_correction_is_added_to_the_bias_or_becomes_one(
    tmp_path: Path, run_graph, bits: list[int], with_bias: bool
) -> None:
    torch.manual_seed(0)
    correction = torch.tensor([1.0, -2.0, 3.0])
    layer = quantize_layer(torch.randn(3, 40), bits, QuantizationScheme())
    layer = replace(layer, bias_correction=correction)
    bias = torch.randn(3)
    write_linear(tmp_path / "layer.onnx", layer, bias.numpy() if with_bias else None)
    x = torch.randn(1, 5, 40)
    expected = x @ layer.dequantize().T + correction + (bias if with_bias else 0)
    y = run_graph(tmp_path / "layer.onnx", {"x": x.numpy()})["y"]
    np.testing.assert_allclose(y, expected.numpy(), atol=1e-5 * float(expected.abs().max()))


def test_float16_compute_agrees_to_float16_accuracy(tmp_path: Path, run_graph) -> None:
    torch.manual_seed(0)
    layer = quantize_layer(
        torch.randn(20, 128) / 11,
        [0] * 2 + [2] * 4 + [4] * 6 + [8] * 4 + [16] * 4,
        QuantizationScheme(),
    )
    write_linear(tmp_path / "layer.onnx", layer, None, "float16")
    x = torch.randn(1, 5, 128).half()
    expected = x.float() @ layer.dequantize().T
    y = run_graph(tmp_path / "layer.onnx", {"x": x.numpy()})["y"]
    np.testing.assert_allclose(y.astype(np.float32), expected.numpy(), atol=5e-3)


@pytest.mark.parametrize(
    ("bits", "operators"),
    [
        ([4] * 8, ["DequantizeLinear", "MatMul"]),
        (
            [16] * 4 + [4] * 4,
            ["Cast", "DequantizeLinear", "MatMul", "MatMul", "Concat"],
        ),  # in order: no Gather
        ([4] * 4 + [16] * 4, ["Cast", "DequantizeLinear", "MatMul", "MatMul", "Concat", "Gather"]),
        ([4] * 6 + [2] * 2, ["DequantizeLinear", "MatMul"]),  # one container, one product
        ([0] * 8, ["Slice", "Mul"]),
    ],
)
def test_only_the_nodes_that_are_needed(
    tmp_path: Path, bits: list[int], operators: list[str]
) -> None:
    layer = quantize_layer(torch.randn(8, 64), bits, QuantizationScheme())
    model = write_linear(tmp_path / "layer.onnx", layer, None)
    assert [node.op_type for node in model.graph.node] == [*operators, "Identity"]


def test_weights_carry_the_layers_name_and_low_bits_are_packed(tmp_path: Path) -> None:
    layer = quantize_layer(
        torch.randn(64, 128), [4] * 32 + [8] * 16 + [16] * 16, QuantizationScheme()
    )
    model = write_linear(tmp_path / "layer.onnx", layer, None)
    sizes = {
        t.name: dict((e.key, e.value) for e in t.external_data).get("length")
        for t in model.graph.initializer
    }
    assert sizes["layer.weight.int4"] == str(32 * 128 // 2)
    assert sizes["layer.weight.int8"] == str(16 * 128)
    assert sizes["layer.weight.float16"] == str(16 * 128 * 2)


@pytest.mark.parametrize("kind", ["int4", "int2"])
def test_packing_is_what_onnx_itself_writes(kind: str) -> None:
    import ml_dtypes

    low, high = {"int4": (-8, 8), "int2": (-2, 2)}[kind]
    codes = np.random.default_rng(0).integers(low, high, (5, 3)).astype(getattr(ml_dtypes, kind))
    assert packed_bytes(codes) == onnx.numpy_helper.from_array(codes).raw_data
