from __future__ import annotations

import numpy as np
import pytest
import torch
from qvla_offline.sensitivity.store import Sensitivity, read_sensitivity, write_sensitivity

from qvla_ros.errors import QvlaError

SENSITIVITY = Sensitivity(
    "action",
    (2, 4),
    {"z": np.array([[1.0, 2.0, 3.0], [0.1, 0.2, 0.3]], np.float32), "a": np.zeros((2, 5), np.float32)},
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
    assert all(np.array_equal(back.scores[name], score) for name, score in SENSITIVITY.scores.items())
    for name in ("method", "bits", "columns", "not_executed", "sources", "settings"):
        assert getattr(back, name) == getattr(SENSITIVITY, name)


def test_pt_file_has_the_released_layout(tmp_path):
    write_sensitivity(tmp_path / "s.pt", SENSITIVITY)
    document = torch.load(tmp_path / "s.pt", weights_only=True)
    assert list(document) == ["z", "a"]
    assert set(document["z"]) == {"proxy_2", "proxy_4"}
    assert torch.equal(document["z"]["proxy_4"], torch.tensor([0.1, 0.2, 0.3]))
    back = read_sensitivity(tmp_path / "s.pt")
    assert (back.bits, back.method) == ((2, 4), "imported")
    assert np.array_equal(back.scores["z"], SENSITIVITY.scores["z"])


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
    uneven = {"a": {"proxy_2": torch.zeros(2), "proxy_4": torch.zeros(2)}, "b": {"proxy_2": torch.zeros(2)}}
    torch.save(uneven, tmp_path / "part.pt")
    with pytest.raises(QvlaError, match="no score"):
        read_sensitivity(tmp_path / "part.pt")
