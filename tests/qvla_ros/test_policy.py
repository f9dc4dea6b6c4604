"""A policy turns an observation into a finite, limited chunk in the robot's units.

An input that is wrong is named.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qvla_ros.bundle import load_bundle
from qvla_ros.engines import load_engine
from qvla_ros.errors import QvlaError
from qvla_ros.observation import Observation
from qvla_ros.policy import Policy, load_policy

PROPRIOCEPTION = np.array([0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.75, 0.0])


@pytest.fixture
def observation() -> Observation:
    images = {name: np.zeros((32, 32, 3), np.uint8) for name in ("agentview", "wrist")}
    return Observation(images, PROPRIOCEPTION, "Pick up the milk", 0, {})


class FixedEngine:
    """Returns what it was given; keeps what it was asked."""

    name = "fixed"
    needs_warm_up = True

    def __init__(self, actions: np.ndarray) -> None:
        self.actions = actions
        self.inputs = {}

    def run(self, inputs: dict) -> dict:
        self.inputs = inputs
        return {"actions": self.actions}

    def close(self) -> None:
        pass


def test_the_graph_runs_on_what_the_robot_senses(
    bundle_dir: Path, observation: Observation
) -> None:
    policy = load_policy(bundle_dir, "onnxruntime", threads=1)
    policy.warm_up()
    prediction = policy.infer(observation)
    # The tiny graph copies the normalised proprioception; the statistics are -1..1, so values come
    # back unchanged.
    np.testing.assert_allclose(prediction.actions, np.tile(PROPRIOCEPTION[:7], (4, 1)), atol=1e-6)
    assert set(prediction.latency_ms) == {"preprocess", "inference", "postprocess"}
    assert not prediction.clipped.any()


def test_the_graph_gets_what_the_contract_names(bundle_dir: Path, observation: Observation) -> None:
    engine = FixedEngine(np.zeros((1, 4, 7), np.float32))
    Policy(load_bundle(bundle_dir), engine).infer(observation)
    shapes = {name: (array.dtype.name, array.shape) for name, array in engine.inputs.items()}
    assert shapes["pixel_values"] == ("float32", (1, 6, 16, 16))
    assert shapes["proprio"] == ("float32", (1, 8))
    assert shapes["input_ids"][0] == "int64"
    assert engine.inputs["input_ids"][0, 0] == 1
    assert engine.inputs["input_ids"][0, -1] == 5


def test_what_exceeds_the_limits_is_clipped_and_counted(
    bundle_dir: Path, observation: Observation
) -> None:
    actions = np.zeros((1, 4, 7), np.float32)
    actions[0, :2, 0] = 3.0
    actions[0, 3, 6] = -0.5
    prediction = Policy(load_bundle(bundle_dir), FixedEngine(actions)).infer(observation)
    assert prediction.actions[:, 0].tolist() == pytest.approx([1, 1, 0, 0], abs=1e-8)
    assert prediction.actions[3, 6] == 0
    assert prediction.clipped.tolist() == [2, 0, 0, 0, 0, 0, 1]


def test_without_limits_the_training_range_holds(
    bundle_dir: Path, observation: Observation
) -> None:
    bundle = load_bundle(bundle_dir)
    bundle = replace(bundle, actions=replace(bundle.actions, limits=None))
    prediction = Policy(bundle, FixedEngine(np.full((1, 4, 7), 9.0, np.float32))).infer(observation)
    assert prediction.actions[0].tolist() == [1] * 7


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_never_returned(
    bundle_dir: Path, observation: Observation, bad: float
) -> None:
    actions = np.zeros((1, 4, 7), np.float32)
    actions[0, 2, 3] = bad
    with pytest.raises(QvlaError, match=r"actions: got .* at \[2, 3\]"):
        Policy(load_bundle(bundle_dir), FixedEngine(actions)).infer(observation)


def test_an_output_of_another_shape_is_refused(bundle_dir: Path, observation: Observation) -> None:
    engine = FixedEngine(np.zeros((1, 8, 7), np.float32))
    with pytest.raises(QvlaError, match=r"\[1, 8, 7\]; expected \[1, 4, 7\]"):
        Policy(load_bundle(bundle_dir), engine).infer(observation)


def test_a_sensor_that_reports_nan_is_refused(bundle_dir: Path, observation: Observation) -> None:
    broken = replace(observation, proprioception=np.full(8, np.nan))
    with pytest.raises(QvlaError, match="proprioception"):
        load_policy(bundle_dir, "zero").infer(broken)


def test_an_instruction_is_refused_before_it_is_followed_if_no_prompt_holds_it(
    bundle_dir: Path,
) -> None:
    policy = load_policy(bundle_dir, "zero")
    policy.require_instruction("pick up the milk")
    for text, words in (("pick " * 300, "fewer words"), ("  ", "a sentence that names the task")):
        with pytest.raises(QvlaError, match=words):
            policy.require_instruction(text)


def test_fake_engines_say_that_they_are_fake(
    bundle_dir: Path, observation: Observation, tmp_path: Path
) -> None:
    np.save(tmp_path / "chunks.npy", np.stack([np.full((4, 7), value) for value in (0.25, 0.5)]))
    for backend, options in {
        "zero": {},
        "sine": {},
        "replay": {"path": str(tmp_path / "chunks.npy")},
    }.items():
        policy = load_policy(bundle_dir, backend, **options)
        assert policy.engine.name.startswith(f"fake ({backend})")
        assert policy.infer(observation).actions.shape == (4, 7)


def test_replay_plays_its_chunks_in_order_and_then_refuses(
    bundle_dir: Path, observation: Observation, tmp_path: Path
) -> None:
    np.save(tmp_path / "chunks.npy", np.stack([np.full((4, 7), value) for value in (0.25, 0.5)]))
    policy = load_policy(bundle_dir, "replay", path=str(tmp_path / "chunks.npy"))
    assert [policy.infer(observation).actions[0, 0] for _ in range(2)] == pytest.approx([0.25, 0.5])
    with pytest.raises(QvlaError, match="replay: got chunk 3; expected at most 2"):
        policy.infer(observation)


def test_a_replay_of_another_shape_is_refused(bundle_dir: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "chunks.npy", np.zeros((2, 8, 7)))
    bundle = load_bundle(bundle_dir)
    for path in (None, str(tmp_path / "absent.npy"), str(tmp_path / "chunks.npy")):
        with pytest.raises(QvlaError, match=r"replay path.*\[N, 4, 7\]"):
            load_engine(bundle, "replay", path=path)
