"""Which options a scoring run takes, and what it makes of a tiny checkpoint.

Recipes and verbs around it are tested in test_recipe.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from qvla_offline.blockwise.passes import Blockwise
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets, unexecuted_targets
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity import inputs as module
from qvla_offline.sensitivity import run
from qvla_offline.sensitivity.exact import measured_scores, top_channels
from qvla_offline.sensitivity.hessian import hessian_scores
from qvla_offline.sensitivity.inputs import load_inputs, spread, suit_threads
from qvla_offline.sensitivity.measures import joint_measure
from qvla_offline.sensitivity.options import Scoring, SensitivityOptions
from qvla_offline.sensitivity.run import compute_sensitivity
from qvla_offline.sensitivity.store import Sensitivity
from qvla_ros.cli.main import main
from qvla_ros.errors import QvlaError

SCHEME = QuantizationScheme()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in ("max_samples", "probes", "memory_gb") for value in (0, -1)),
        *((key, value) for key in ("memory_gb", "percdamp") for value in (math.nan, math.inf)),
        *((key, -1) for key in ("check", "refine", "seed", "percdamp")),
    ],
)
def test_a_number_out_of_range_or_not_finite_is_refused_by_its_key(key: str, value: float) -> None:
    with pytest.raises(QvlaError, match=f"^{key}: got {value}; .*--{key}"):
        Scoring(**{key: value})


@pytest.mark.parametrize("option", ["--check=-3", "--refine=-1", "--memory_gb=nan"])
def test_the_verb_refuses_it_before_it_looks_at_the_checkpoint(
    option: str, capsys: pytest.CaptureFixture
) -> None:
    paths = ["--pretrained_checkpoint", "absent", "--calib_jsonl", "absent", "--out_path", "absent"]
    assert main(["sensitivity", *paths, option]) == 2
    assert capsys.readouterr().err.startswith(f"error: {option[2:].partition('=')[0]}\n")


def test_the_defaults_are_those_of_the_released_script_where_it_has_the_option() -> None:
    """Its command line: bits 0,2,4,8, max_samples 32, percdamp 0.01."""
    assert Scoring(method="hessian").bits == (0, 2, 4, 8)
    assert Scoring().max_samples == 32
    assert Scoring().percdamp == 0.01
    defaults = inspect.signature(hessian_scores).parameters
    assert defaults["percdamp"].default == 0.01


@pytest.mark.parametrize("key", ["check", "refine", "seed", "percdamp"])
def test_nothing_to_check_no_damping_and_seed_zero_are_options(key: str) -> None:
    assert getattr(Scoring(**{key: 0}), key) == 0


@pytest.mark.parametrize(
    ("method", "bits", "kept"),
    [
        ("action", (16, 8, 0, 8), (0, 8)),  # in order, once; at 16 bits the score is 0
        ("action", (3,), (3,)),  # no container holds it, but `qvla error` measures it
        ("action", (5,), None),
        ("action", (), (2, 4, 8)),
        ("hessian", (15, 0, 2), (0, 2, 15)),
        ("hessian", (1,), None),  # their rule divides by zero there
        ("hessian", (17,), None),
        ("action", (16,), None),
    ],
)
def test_only_bits_that_the_method_can_score_are_taken(
    method: str, bits: tuple[int, ...], kept: tuple[int, ...] | None
) -> None:
    if kept is None:
        with pytest.raises(QvlaError, match="^bits: "):
            Scoring(method=method, bits=bits)
    else:
        assert Scoring(method=method, bits=bits).bits == kept


@pytest.mark.parametrize("key", ["check", "refine"])
def test_what_is_measured_in_actions_needs_the_action_method(key: str) -> None:
    with pytest.raises(QvlaError, match=f"^{key}: got 1 with method hessian"):
        Scoring(method="hessian", **{key: 1})
    assert Scoring(method="hessian").check == 0


def test_the_identity_of_a_run_holds_what_changes_its_numbers() -> None:
    """Other options may differ when a run is resumed."""
    same = SensitivityOptions(memory_gb=9.0, check=5, skip_bad_lines=True, device="cuda")
    assert same.identity() == SensitivityOptions().identity()
    for method, matters in (
        ("action", {"probes": 5, "seed": 1, "refine": 3, "max_samples": 9, "bits": (4,)}),
        ("hessian", {"percdamp": 0.5, "max_samples": 9, "bits": (4,)}),
    ):
        plain = SensitivityOptions(method=method).identity()
        for key, value in matters.items():
            assert SensitivityOptions(method=method, **{key: value}).identity() != plain, key
    assert SensitivityOptions(percdamp=0.5).identity() == SensitivityOptions().identity()


@given(st.integers(1, 60), st.integers(1, 20))
def test_some_of_the_samples_lie_at_even_distances_from_the_first_on(count: int, most: int) -> None:
    found = spread(list(range(count)), most)
    assert len(found) == min(count, most)
    assert found[0] == 0
    steps = np.diff([*found, count])
    assert steps.min() >= 1
    assert steps.max() - steps.min() <= 1


def test_a_small_policy_runs_on_one_thread_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(module, "SMALL_MODEL", 20)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    suit_threads(nn.Linear(4, 4))  # 20 weights are not below 20
    assert asked == []
    suit_threads(nn.Linear(6, 2))
    assert asked == [1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    suit_threads(nn.Linear(6, 2))
    assert asked == [1]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tiny checkpoint and three calibration samples."""
    folder = tmp_path_factory.mktemp("work")
    write_random_checkpoint(folder / "checkpoint")
    generator = np.random.default_rng(0)
    lines = []
    for index in range(3):
        paths = {view: f"{view}{index}.png" for view in ("image", "wrist_image")}
        for path in paths.values():
            pixels = generator.integers(0, 255, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / path)
        state = generator.uniform(-0.4, 0.4, 8).tolist()
        lines.append(json.dumps({"text": "pick up the milk", **paths, "proprio": state}))
    (folder / "calibration.jsonl").write_text("\n".join(lines))
    return folder


def score(work: Path, name: str, resume: bool = False, **options: Any) -> Sensitivity:
    given = SensitivityOptions(**({"bits": (4,), "probes": 1} | options))
    paths = (work / "checkpoint", work / "calibration.jsonl", work / name)
    found, _ = compute_sensitivity(*paths, given, resume)
    return found


def test_a_run_says_what_it_was_made_from_and_reads_no_more_samples_than_asked(work: Path) -> None:
    found = score(work, "two.safetensors", method="hessian", max_samples=2)
    assert found.settings["samples"] == 2
    assert score(work, "all.safetensors", method="hessian").settings["samples"] == 3
    assert set(found.sources) == {"checkpoint_sha256", "calibration_sha256"}
    model = load_checkpoint(work / "checkpoint").model
    targets = quantization_targets(model)
    assert found.columns == {n: m.weight[0].numel() for n, m in targets.items()}
    assert set(found.not_executed) == unexecuted_targets(model)
    assert not (work / "two.safetensors.partial").exists()


def test_refined_scores_are_the_measured_ones_of_the_most_sensitive_channels(work: Path) -> None:
    options = {"bits": (4, 8), "refine": 2}
    plain = score(work, "plain.safetensors", bits=(4, 8))
    refined = score(work, "refined.safetensors", **options)
    inputs = load_inputs(
        work / "checkpoint", work / "calibration.jsonl", SensitivityOptions(**options)
    )
    top = top_channels(plain.executed(), (4, 8), 2)
    measured = measured_scores(inputs.policy, inputs.targets, inputs.samples, top, SCHEME)
    expected = {name: score.copy() for name, score in plain.scores.items()}
    for (name, channel, bits), value in zip(top, measured, strict=True):
        expected[name][(4, 8).index(bits), channel] = value
    for name, values in expected.items():
        np.testing.assert_allclose(refined.scores[name], values, rtol=1e-5, atol=1e-12)


def test_a_resumed_run_takes_over_what_is_finished_and_refuses_another_runs_scores(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = score(work, "again.safetensors", method="hessian")
    scored: set[str] = set()

    def noting(policy: Blockwise, targets: dict, *rest: Any) -> Iterator[Any]:
        scored.update(targets)
        return hessian_scores(policy, targets, *rest)

    monkeypatch.setattr(run, "hessian_scores", noting)
    again = score(work, "again.safetensors", resume=True, method="hessian")
    assert not scored
    assert again.not_executed == first.not_executed
    for name, values in first.scores.items():
        assert np.array_equal(again.scores[name], values)
    with pytest.raises(QvlaError, match=r"^resume: got .* of another run .bits \[4\]"):
        score(work, "again.safetensors", resume=True, method="hessian", bits=(8,))
    with pytest.raises(QvlaError, match="of another run"):
        score(work, "again.safetensors", resume=True, method="hessian", max_samples=1)


def test_a_run_starts_anew_unless_it_is_asked_to_go_on(work: Path) -> None:
    score(work, "anew.safetensors", method="hessian")
    other = SensitivityOptions(method="hessian", bits=(8,))
    paths = (work / "checkpoint", work / "calibration.jsonl", work / "anew.safetensors")
    found, _ = compute_sensitivity(*paths, other)
    assert found.bits == (8,)


def test_the_joint_error_of_float_gates_is_nothing_and_more_bits_err_less(work: Path) -> None:
    measure = joint_measure(
        work / "checkpoint", work / "calibration.jsonl", SensitivityOptions(bits=(4,))
    )
    scores = score(work, "joint.safetensors").executed()

    def error(bits: int) -> float:
        by_bits, whole = measure({n: np.full(s.shape[1], bits) for n, s in scores.items()})
        assert by_bits == ({} if bits == 16 else {bits: whole})
        return whole

    assert error(16) == 0.0
    assert 0.0 < error(8) < error(4)
