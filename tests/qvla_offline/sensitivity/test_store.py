from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from qvla_offline.sensitivity import store
from qvla_offline.sensitivity.store import Sensitivity, read_sensitivity, write_sensitivity
from qvla_ros.errors import QvlaError

SENSITIVITY = Sensitivity(
    "action",
    (2, 4),
    {
        "z": np.array([[1.0, 2.0, 3.0], [0.1, 0.2, 0.3]], np.float32),
        "a": np.zeros((2, 5), np.float32),
    },
    {"z": 7, "a": 9},
    ("a",),
    {"checkpoint": "c" * 64},
    {"seed": 3},
)


def test_safetensors_file_gives_back_scores_order_and_provenance(tmp_path):
    write_sensitivity(tmp_path / "s.safetensors", SENSITIVITY)
    back = read_sensitivity(tmp_path / "s.safetensors")
    assert list(back.scores) == ["z", "a"]
    assert list(back.executed()) == ["z"]
    assert all(
        np.array_equal(back.scores[name], score) for name, score in SENSITIVITY.scores.items()
    )
    for name in ("method", "bits", "columns", "not_executed", "sources", "settings"):
        assert getattr(back, name) == getattr(SENSITIVITY, name)


def test_pt_file_has_the_released_layout(tmp_path):
    write_sensitivity(tmp_path / "s.pt", SENSITIVITY)
    document = torch.load(tmp_path / "s.pt", weights_only=True)
    assert list(document) == ["z", "a"]
    assert set(document["z"]) == {"proxy_2", "proxy_4"}
    assert torch.equal(document["z"]["proxy_4"], torch.tensor([0.1, 0.2, 0.3]))
    (tmp_path / "s.pt.json").unlink()  # as the released script leaves it
    back = read_sensitivity(tmp_path / "s.pt")
    assert (back.bits, back.method, back.sources, back.columns) == ((2, 4), "imported", {}, {})
    assert np.array_equal(back.scores["z"], SENSITIVITY.scores["z"])


def test_the_file_beside_a_pt_gives_back_what_the_released_layout_leaves_out(tmp_path):
    write_sensitivity(tmp_path / "s.pt", SENSITIVITY)
    back = read_sensitivity(tmp_path / "s.pt")
    assert np.array_equal(back.scores["z"], SENSITIVITY.scores["z"])
    for name in ("method", "bits", "columns", "not_executed", "sources", "settings"):
        assert getattr(back, name) == getattr(SENSITIVITY, name)


@pytest.mark.parametrize("name", ["s.safetensors", "s.pt"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused_before_a_file_is_written(tmp_path, name, value):
    broken = {**SENSITIVITY.scores, "a": np.full((2, 5), value, np.float32)}
    with pytest.raises(QvlaError, match=r"^sensitivity of a: .*finite.*too large for float32"):
        write_sensitivity(tmp_path / name, replace(SENSITIVITY, scores=broken))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"columns": []}, "columns"),
        ({"columns": {"z": 7}}, "columns"),
        ({"not_executed": "a"}, "not_executed"),
        ({"order": ["z"]}, "order"),
        ({"settings": {"scheme": {"group": 1}}}, "settings.scheme.group"),
        ({"file_sha256": "0" * 64}, "file_sha256"),
        ({"schema_version": 9}, "schema_version"),
    ],
)
def test_a_damaged_or_foreign_side_file_is_refused_naming_the_key(tmp_path, change, named):
    write_sensitivity(tmp_path / "s.pt", SENSITIVITY)
    side = tmp_path / "s.pt.json"
    side.write_text(json.dumps(json.loads(side.read_text()) | change))
    with pytest.raises(QvlaError) as caught:
        read_sensitivity(tmp_path / "s.pt")
    assert caught.value.key == f"{side}: {named}"


@pytest.mark.parametrize("name", ["s.pt", "s.safetensors"])
def test_scores_that_are_not_finite_are_refused_naming_the_layer(tmp_path, monkeypatch, name):
    with monkeypatch.context() as patched:  # as earlier releases and other programs write them
        patched.setattr(store, "_require_finite", lambda *_: None)
        scores = SENSITIVITY.scores | {
            "z": np.array([[1.0, np.nan, 3.0], [0.1, 0.2, 0.3]], np.float32)
        }
        write_sensitivity(tmp_path / name, replace(SENSITIVITY, scores=scores))
    with pytest.raises(QvlaError, match=r": z: .*finite"):
        read_sensitivity(tmp_path / name)


@pytest.mark.parametrize("name", ["s.pt", "s.safetensors"])
def test_settings_that_json_cannot_hold_are_not_written(tmp_path, name):
    with pytest.raises(ValueError, match="JSON"):
        write_sensitivity(tmp_path / name, replace(SENSITIVITY, settings={"ratio": float("nan")}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"a": {"x": torch.zeros(2)}},
        {"a": {"proxy_4": 1.0}},
        {"a": {"proxy_2": torch.ones(3), "proxy_4": torch.ones(2)}},
    ],
)
def test_a_pt_file_without_whole_scores_is_refused(tmp_path, document):
    torch.save(document, tmp_path / "s.pt")
    with pytest.raises(QvlaError, match=r"s\.pt.*proxy_4"):
        read_sensitivity(tmp_path / "s.pt")


def test_absent_corrupt_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(QvlaError, match="proxy_pt"):
        read_sensitivity(tmp_path / "absent.pt")
    for name in ("s.pt", "s.safetensors"):
        (tmp_path / name).write_bytes(b"not a tensor file")
        with pytest.raises(QvlaError, match=name):
            read_sensitivity(tmp_path / name)
    torch.save({"a": torch.zeros(2)}, tmp_path / "flat.pt")
    with pytest.raises(QvlaError, match=r"flat\.pt"):
        read_sensitivity(tmp_path / "flat.pt")
    uneven = {
        "a": {"proxy_2": torch.zeros(2), "proxy_4": torch.zeros(2)},
        "b": {"proxy_2": torch.zeros(2)},
    }
    torch.save(uneven, tmp_path / "part.pt")
    with pytest.raises(QvlaError, match="no score"):
        read_sensitivity(tmp_path / "part.pt")


def test_the_score_at_sixteen_bits_which_is_zero_is_left_out(tmp_path):
    entry = {"proxy_16": torch.zeros(2), "proxy_8": torch.ones(2), "proxy_4": torch.full((2,), 3.0)}
    torch.save({"a": entry}, tmp_path / "s.pt")
    found = read_sensitivity(tmp_path / "s.pt")
    assert found.bits == (4, 8)
    assert found.scores["a"].tolist() == [[3.0, 3.0], [1.0, 1.0]]


def test_files_of_the_first_schema_stay_readable(tmp_path):
    """Their number is written in files that people keep."""
    write_sensitivity(tmp_path / "s.pt", SENSITIVITY)
    assert json.loads((tmp_path / "s.pt.json").read_text())["schema_version"] == 1


@pytest.mark.parametrize("shape", [(3,), (1, 3), (3, 3), (2, 3, 1)])
def test_scores_of_another_shape_than_bits_and_channels_are_refused(tmp_path, shape):
    scores = {"z": np.ones(shape, np.float32), "a": np.ones((2, 5), np.float32)}
    write_sensitivity(tmp_path / "s.safetensors", replace(SENSITIVITY, scores=scores))
    with pytest.raises(QvlaError, match=r": z: got shape .*expected \[2, channels\]"):
        read_sensitivity(tmp_path / "s.safetensors")
