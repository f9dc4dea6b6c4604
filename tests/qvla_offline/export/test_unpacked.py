"""The graph for engines that unpack weights at load gives the same numbers.

It has one product per layer and the same data file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.linear import emit_linear, opset_for
from qvla_offline.export.unpacked import merge_row_groups
from qvla_offline.quantization.quantizer import quantize_layer
from qvla_offline.quantization.scheme import QuantizationScheme


def write_both(
    directory: Path, bits: list[int], inputs: int, storage: str = "int4"
) -> tuple[Path, Path]:
    torch.manual_seed(len(bits) * 1000 + inputs)
    layer = quantize_layer(
        torch.randn(len(bits), inputs), bits, QuantizationScheme(two_bit_storage=storage)
    )
    with GraphBuilder(directory / "data", opset=opset_for(storage)) as graph:
        x = graph.input("x", np.float32, [1, "T", inputs])
        y = emit_linear(graph, x, "layer", layer, np.arange(len(bits)))
        graph.output(y, "y", np.float32, [1, "T", len(bits)])
        stored = graph.finish()
        onnx.save(stored.model, directory / "split.onnx")
        onnx.save(merge_row_groups(stored.model, stored.products), directory / "merged.onnx")
    onnx.checker.check_model(directory / "merged.onnx", full_check=True)
    return directory / "split.onnx", directory / "merged.onnx"


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    bits=st.lists(st.sampled_from([0, 2, 4, 8, 16]), min_size=1, max_size=40),
    inputs=st.integers(1, 200),
    storage=st.sampled_from(["int4", "int2"]),
)
def test_any_mix_of_bits_gives_the_same_numbers(
    tmp_path: Path, run_graph, bits: list[int], inputs: int, storage: str
) -> None:
    split, merged = write_both(tmp_path, bits, inputs, storage)
    x = torch.randn(1, 3, inputs).numpy()
    expected = run_graph(split, {"x": x})["y"]
    np.testing.assert_allclose(
        run_graph(merged, {"x": x})["y"], expected, atol=1e-5 * max(1, np.abs(expected).max())
    )
    assert operators(merged).count("MatMul") == (1 if any(bits) else 0)


def test_no_activation_is_reordered_or_padded(tmp_path: Path) -> None:
    split, merged = write_both(tmp_path, [4, 0, 16, 8, 2, 4, 8], 70)
    assert operators(split).count("Pad") == 2  # the ragged inputs, the zero column
    nodes = onnx.load(merged, load_external_data=False).graph.node
    assert [node.op_type for node in nodes if "x" in node.input] == ["MatMul"]
    assert [node.op_type for node in nodes][-3:] == ["MatMul", "Add", "Identity"]


@pytest.mark.parametrize("bits", [[4] * 8, [8] * 8])
def test_what_cannot_gain_is_left_as_it_is(tmp_path: Path, bits: list[int]) -> None:
    split, merged = write_both(tmp_path, bits, 64)
    assert operators(merged) == operators(split)
