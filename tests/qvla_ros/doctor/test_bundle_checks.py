"""The doctor's findings about a bundle: its files, its plans, its actions and its speed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qvla_ros.bundle import load_bundle
from qvla_ros.cli.main import main
from qvla_ros.doctor.bundle_checks import (
    bundle_findings,
    parity_finding,
    plan_findings,
    policy_findings,
    speed_finding,
)
from qvla_ros.doctor.parity import Parity, write_parity
from qvla_ros.engines.plan import PlanSidecar, graph_hashes, plan_path, sidecar_path, write_sidecar
from qvla_ros.policy import load_policy

PARITY = Parity("id", "onnxruntime", (), np.zeros((1, 4, 2)))


@pytest.fixture
def directory(make_bundle, tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def test_a_damaged_bundle_is_a_problem_that_names_the_file(directory):
    assert bundle_findings(directory)[1].status == "ok"
    (directory / "policy.onnx").write_bytes(b"")
    bundle, finding = bundle_findings(directory)
    assert (bundle, finding.status) == (None, "problem")
    assert "policy.onnx" in finding.text


def add_plan(directory: Path, version: str = "10.3.0", capability: str = "87", **changes) -> None:
    path = plan_path(directory, "tensorrt", version, (capability,))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"plan")
    sha = "3b9bb95bae3cd9dc6da1ba8a6b1a0d9b"
    graph = graph_hashes(load_bundle(directory))
    sidecar = PlanSidecar("tensorrt", version, (capability,), graph, (2, 32, 128), sha, 4, 1.0)
    write_sidecar(sidecar_path(path), replace(sidecar, **changes))


@pytest.mark.parametrize(
    ("plan", "status", "words"),
    [
        ({}, "ok", "fits this GPU"),
        ({"version": "9.0.0"}, "warning", "built by tensorrt 9.0.0"),
        ({"capability": "86"}, "warning", "built for compute capability 86"),
        ({"graph": {"policy.onnx": "0"}}, "warning", "another graph"),
    ],
)
def test_plans_are_compared_with_gpu_version_and_graph(
    directory, good_machine, plan, status, words
):
    add_plan(directory, **plan)
    [finding] = plan_findings(load_bundle(directory), good_machine, "onnxruntime")
    assert finding.status == status
    assert words in finding.text
    assert ("qvla build" in finding.fix) == (status != "ok")


def test_a_plan_that_is_asked_for_must_be_there(directory, good_machine):
    [finding] = plan_findings(load_bundle(directory), good_machine, "tensorrt")
    assert finding.status == "problem"
    assert "no plan under" in finding.text
    [finding] = plan_findings(
        load_bundle(directory), replace(good_machine, compute_capability=None), "tensorrt"
    )
    assert finding.text == "no GPU here"
    assert not list(
        plan_findings(
            load_bundle(directory), replace(good_machine, compute_capability=None), "onnxruntime"
        )
    )


@pytest.mark.parametrize(
    ("apart", "draws_noise", "status"),
    [
        ((0.0, 9e-4), False, "ok"),
        ((2e-2, 0.0), False, "warning"),
        ((0.0, 0.05), False, "problem"),
        ((0.0, 0.05), True, "warning"),
        ((np.nan, 0.0), False, "problem"),
    ],
)
def test_answers_are_the_same_close_or_wrong(apart, draws_noise, status):
    finding = parity_finding(np.array(apart), ("x", "y"), PARITY, "tensorrt", draws_noise)
    assert finding.status == status
    assert f"({'xy'[int(np.argmax(np.nan_to_num(apart, nan=np.inf)))]})" in finding.text


def test_an_inference_longer_than_a_chunk_is_reported(bundle_dir):
    bundle = load_bundle(bundle_dir)  # four actions of 50 ms
    assert speed_finding([100.0, 199.0], bundle).status == "ok"
    assert speed_finding([100.0, 201.0], bundle).status == "warning"


def test_a_policy_is_run_and_compared_with_what_it_brings(directory):
    bundle = load_bundle(directory)
    options = {"threads": 1}
    parity, speed = policy_findings(bundle, "onnxruntime", options)
    assert (parity.status, speed.status) == ("warning", "ok")
    assert "--write_parity" in parity.fix
    write_parity(load_policy(directory, "onnxruntime", **options))
    assert [finding.status for finding in policy_findings(bundle, "onnxruntime", options)] == [
        "ok",
        "ok",
    ]
    assert next(policy_findings(bundle, "zero", {})).status == "problem"
    [refused] = policy_findings(bundle, "onnxruntime", {"threads": 0})
    assert refused.status == "problem"


def test_the_verb_prints_findings_and_fails_on_a_problem(directory, capsys, monkeypatch):
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    arguments = [
        "doctor",
        "--no_graph",
        "--engine_options",
        '{"threads": 1}',
        "--bundle",
        str(directory),
    ]
    assert main([*arguments, "--write_parity"]) == 0
    assert "parity: onnxruntime" in capsys.readouterr().out
    (directory / "tokenizer.json").unlink()
    assert main([*arguments, "--json"]) == 1
    [problem] = [
        item for item in json.loads(capsys.readouterr().out) if item["status"] == "problem"
    ]
    assert problem["about"] == "bundle"
    assert "copy the bundle again" in problem["fix"]
