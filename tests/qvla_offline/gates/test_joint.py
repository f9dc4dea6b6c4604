from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.gates.assign import assign_gates
from qvla_offline.gates.joint import assign_jointly
from qvla_offline.gates.options import Budget
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.store import Sensitivity, write_sensitivity
from qvla_ros.cli.main import main
from qvla_ros.errors import QvlaError

SCHEME = QuantizationScheme(16)
BITS = (0, 2, 4, 8)


def sensitivity(rows: int = 64) -> Sensitivity:
    generator = np.random.default_rng(0)
    falling = np.array([1.0, 0.1, 0.01, 1e-4])[:, None]
    scores = {"a": (falling * generator.exponential(1.0, rows) ** 2).astype(np.float32)}
    return Sensitivity("action", BITS, scores, {"a": 128})


def aligned_zeros(layers):
    """Dropped rows together cost thirty times the sum of their scores, the others their sum."""
    scores = sensitivity().scores["a"]
    bits = layers["a"]
    sums = {b: float(scores[i][bits == b].sum()) for i, b in enumerate(BITS) if (bits == b).any()}
    by_bits = {b: total * (30.0 if b == 0 else 1.0) for b, total in sums.items()}
    return by_bits, sum(by_bits.values())


def test_repricing_avoids_the_bit_width_whose_errors_align():
    budget = Budget(3.0, tile=1)
    plain = assign_gates(sensitivity(), budget, SCHEME)
    joint = assign_jointly(sensitivity(), budget, SCHEME, aligned_zeros, 3)
    assert joint.histogram().get(0, 0) < plain.histogram()[0]
    assert (
        joint.budget["measured_error"]
        == aligned_zeros(joint.layers)[1]
        < aligned_zeros(plain.layers)[1]
    )
    assert joint.budget["nominal_bits_per_weight"] <= 3.0
    assert joint.method == "action/optimal/joint"


def test_a_repricing_that_does_worse_is_not_taken():
    errors = iter([1.0, 5.0, 7.0])
    plain = assign_gates(sensitivity(), Budget(3.0, tile=1), SCHEME)
    joint = assign_jointly(
        sensitivity(), Budget(3.0, tile=1), SCHEME, lambda _: ({0: 1e3, 4: 1e-9}, next(errors)), 2
    )
    assert np.array_equal(joint.layers["a"], plain.layers["a"])
    assert joint.budget["measured_error"] == 1.0


def test_scores_in_other_units_than_actions_are_refused():
    hessian = Sensitivity("hessian", BITS, sensitivity().scores, {"a": 128})
    with pytest.raises(QvlaError, match="joint_rounds"):
        assign_jointly(hessian, Budget(3.0), SCHEME, aligned_zeros, 1)
    with pytest.raises(QvlaError, match="joint_rounds"):
        assign_jointly(sensitivity(), Budget(3.0, method="released"), SCHEME, aligned_zeros, 1)


def test_a_negative_number_of_rounds_is_refused_before_anything_is_read_or_measured(capsys):
    with pytest.raises(QvlaError, match="^joint_rounds: got -1; expected a number from 0 on"):
        assign_jointly(sensitivity(), Budget(3.0), SCHEME, aligned_zeros, -1)
    assert (
        main(["gates", "--proxy_pt", "absent", "--out_json", "absent", "--joint_rounds", "-1"]) == 2
    )
    assert "joint_rounds" in capsys.readouterr().err


def test_errors_are_not_measured_on_another_checkpoint_than_was_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = replace(
        sensitivity(), sources={"checkpoint_sha256": "0" * 64}, settings={"scheme": asdict(SCHEME)}
    )
    write_sensitivity(tmp_path / "scores.safetensors", scored)
    other = write_random_checkpoint(tmp_path / "other")
    (tmp_path / "lines.jsonl").touch()
    words = [
        "gates",
        "--proxy_pt",
        str(tmp_path / "scores.safetensors"),
        "--out_json",
        str(tmp_path / "gates.json"),
    ]
    words += ["--joint_rounds", "1", "--pretrained_checkpoint", str(other)]
    assert main([*words, "--calib_jsonl", str(tmp_path / "lines.jsonl")]) == 2
    printed = capsys.readouterr().err
    assert "error: pretrained_checkpoint" in printed
    assert "the checkpoint that" in printed
    assert not (tmp_path / "gates.json").exists()
