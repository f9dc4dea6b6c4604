"""No weight that is not a number, or would stop being one, gets into a graph."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.policy import emit_policy
from qvla_offline.export.weights import CheckpointWeights
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError
from tests.support.random_model import random_model

NORM = "language_model.model.norm.weight"
EMBEDDINGS = "language_model.model.embed_tokens.weight"
BIAS = "vision_backbone.featurizer.blocks.0.mlp.fc1.bias"
LAYER = "language_model.model.layers.0.mlp.up_proj.weight"
POSITIONS = "vision_backbone.featurizer.pos_embed"


def emit_with(path: Path, name: str, value: float, compute: str = "float32") -> None:
    """Emit plain OpenVLA with one number of tensor `name` replaced."""
    model = random_model("tiny", family="openvla")
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state[name].view(-1)[3] = value
    with GraphBuilder(path / "policy.onnx.data", compute) as graph:
        emit_policy(graph, CheckpointWeights(state, {}, QuantizationScheme()), model.config)


@pytest.mark.parametrize("name", [NORM, EMBEDDINGS, BIAS, LAYER, POSITIONS])
@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_a_tensor_that_is_not_finite_is_refused_by_name(
    tmp_path: Path, name: str, value: float, word: str
) -> None:
    with pytest.raises(QvlaError, match=f"^{re.escape(name)}: got {word}; expected finite.*again"):
        emit_with(tmp_path, name, value)


@pytest.mark.parametrize(
    ("name", "compute", "fix"),
    [
        (EMBEDDINGS, "float32", "smaller embeddings"),
        (LAYER, "float32", "8 bits"),
        (NORM, "float16", "compute_dtype float32"),
        (BIAS, "float16", "compute_dtype float32"),
    ],
)
def test_a_magnitude_that_float16_turns_into_infinity_is_refused_by_name(
    tmp_path: Path, name: str, compute: str, fix: str
) -> None:
    with pytest.raises(
        QvlaError, match=f"^{re.escape(name)}: got magnitudes up to 70000; .*65504.*Fix: .*{fix}"
    ):
        emit_with(tmp_path, name, 7e4, compute)


@pytest.mark.parametrize("name", [NORM, BIAS])
def test_a_large_magnitude_passes_where_the_graph_holds_float32(tmp_path: Path, name: str) -> None:
    emit_with(tmp_path, name, 7e4)


def test_the_largest_float16_passes(tmp_path: Path) -> None:
    emit_with(tmp_path, EMBEDDINGS, float(torch.finfo(torch.float16).max), "float16")


def test_what_float16_changes_in_tensors_without_gates_is_added_up(tmp_path: Path) -> None:
    model = random_model("tiny", family="openvla")
    found = {}
    for name, state in (
        ("exact", model.half().state_dict()),
        ("wide", random_model().state_dict()),
    ):
        weights = CheckpointWeights(state, {}, QuantizationScheme())
        for tensor in ("projector.fc1", "language_model.lm_head"):
            weights.layer(tensor)
        found[name] = weights.rounding
    assert found["exact"].described() is None
    assert found["wide"].tensors == 2
    assert 1e-5 < (found["wide"].changed / found["wide"].total) ** 0.5 < 2**-11
    assert "of 2 tensors changed, by 0.000" in str(found["wide"].described())
