from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from qvla_offline.gates import (
    Gates,
    read_gates,
    uniform,
    write_gates,
)
from qvla_ros.errors import QvlaError

ROWS = {
    "language_model.model.layers.0.mlp.up_proj": 3,
    "vision_backbone.featurizer.blocks.0.attn.qkv": 2,
}
GATES = Gates(
    {name: np.array([4] * rows, dtype=np.uint8) for name, rows in ROWS.items()},
    "test",
    {"asked": 4.0},
)


def test_gates_survive_their_own_file(tmp_path):
    write_gates(tmp_path / "gates.json", GATES)
    back = read_gates(tmp_path / "gates.json", ROWS)
    assert back.method == "test"
    assert back.budget == {"asked": 4.0}
    assert {n: row.tolist() for n, row in back.layers.items()} == {
        n: row.tolist() for n, row in GATES.layers.items()
    }


def test_released_layouts_are_read(tmp_path):
    flat = {name: row.tolist() for name, row in GATES.layers.items()}
    short = {name.split(".", 1)[1]: row for name, row in flat.items()}
    for index, document in enumerate(
        (flat, short, {"proxy_pt": "p.pt", "bits": [4], "assign": flat, "stats": {}})
    ):
        path = tmp_path / f"{index}.json"
        path.write_text(json.dumps(document))
        assert list(read_gates(path, ROWS).layers) == list(ROWS)
    torch.save({name: torch.tensor(row) for name, row in flat.items()}, tmp_path / "gates.pt")
    assert read_gates(tmp_path / "gates.pt", ROWS).layers[next(iter(ROWS))].tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"language_model.model.layers.0.mlp.up_proj": [4, 4]}, "up_proj"),
        ({"language_model.model.layers.0.mlp.up_proj": [4, 4, 5]}, "up_proj"),
        ({"language_model.model.layers.0.mlp.up_proj": "444"}, "up_proj"),
        ({"language_model.model.layers.9.mlp.up_proj": [4]}, "layers.9"),
        ({"vision_backbone.featurizer.blocks.0.attn.qkv": None}, "attn.qkv"),
    ],
)
def test_wrong_gates_are_refused_naming_the_layer(tmp_path, change, named):
    document = {name: row.tolist() for name, row in GATES.layers.items()} | change
    (tmp_path / "gates.json").write_text(json.dumps(document))
    with pytest.raises(QvlaError, match=named):
        read_gates(tmp_path / "gates.json", ROWS)


def test_missing_layer_missing_file_and_wrong_schema_are_refused(tmp_path):
    name = next(iter(ROWS))
    (tmp_path / "part.json").write_text(json.dumps({name: [4, 4, 4]}))
    with pytest.raises(QvlaError, match=r"attn\.qkv"):
        read_gates(tmp_path / "part.json", ROWS)
    with pytest.raises(QvlaError, match="gates_path"):
        read_gates(tmp_path / "absent.json")
    (tmp_path / "new.json").write_text(json.dumps({"schema_version": 99, "layers": {}}))
    with pytest.raises(QvlaError, match="schema_version"):
        read_gates(tmp_path / "new.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(QvlaError, match=r"broken\.json"):
        read_gates(tmp_path / "broken.json")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"scheme": {"group": 64}}, r"scheme\.group:"),
        ({"scheme": {"group_size": 48}}, r"scheme\.group_size"),
        ({"scheme": []}, "scheme"),
        ({"budget": 4}, "budget"),
        ({"not_executed": "a"}, "not_executed"),
        ({"not_executed": [1]}, r"not_executed\[0\]"),
    ],
)
def test_damaged_facts_of_a_gates_file_are_refused_naming_the_key(tmp_path, change, named):
    write_gates(tmp_path / "gates.json", GATES)
    document = json.loads((tmp_path / "gates.json").read_text()) | change
    (tmp_path / "gates.json").write_text(json.dumps(document))
    with pytest.raises(QvlaError, match=named):
        read_gates(tmp_path / "gates.json")


def test_uniform_gates_cover_every_layer():
    assert uniform(ROWS, 8).histogram() == {8: 5}
    with pytest.raises(QvlaError, match="bit-widths"):
        uniform(ROWS, 5)


def test_gates_of_the_first_schema_stay_readable(tmp_path):
    """Their number is written in files that people keep."""
    write_gates(tmp_path / "gates.json", GATES)
    assert json.loads((tmp_path / "gates.json").read_text())["schema_version"] == 1


def test_a_histogram_counts_the_bit_widths_that_occur():
    layers = {"a": np.array([0, 4, 4], np.uint8), "b": np.array([16, 4], np.uint8)}
    assert Gates(layers, "test").histogram() == {0: 1, 4: 3, 16: 1}
    assert Gates({}, "test").histogram() == {}


def test_a_budget_that_json_cannot_hold_is_not_written(tmp_path):
    broken = Gates(GATES.layers, "test", {"reached": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        write_gates(tmp_path / "gates.json", broken)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layers", [[], [[4, 4]], {}, "4"])
def test_layers_that_are_no_filled_object_are_refused(tmp_path, layers):
    path = tmp_path / "gates.json"
    path.write_text(json.dumps({"schema_version": 1, "layers": layers}))
    with pytest.raises(QvlaError, match="an object"):
        read_gates(path)
