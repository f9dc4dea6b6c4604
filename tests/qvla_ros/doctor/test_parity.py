"""A bundle shows whether a policy gives the same actions here as where it was exported."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from qvla_ros.bundle import load_bundle
from qvla_ros.doctor.parity import (
    PARITY_FILE,
    parity_actions,
    read_parity,
    relative_difference,
    write_parity,
)
from qvla_ros.errors import QvlaError
from qvla_ros.policy import Policy, load_policy


@pytest.fixture
def directory(make_bundle: Callable[[Path], Path], tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def written(directory: Path) -> Path:
    return write_parity(load_policy(directory, "onnxruntime", threads=1))


def test_the_same_engine_gives_the_same_and_the_bundle_stays_itself(
    directory: Path, written: Path
) -> None:
    before = load_bundle(directory)
    policy = load_policy(directory, "onnxruntime", threads=1)
    parity = read_parity(policy.bundle)
    assert parity is not None
    assert (parity.bundle_id, parity.engine) == (before.bundle_id, policy.engine.name)
    assert PARITY_FILE not in before.files
    actions = parity_actions(policy, parity.observations)
    assert (actions != actions[0, 0, 0]).any()  # the answers depend on the observations
    np.testing.assert_array_equal(
        relative_difference(actions, parity, before.statistics["action"]), 0.0
    )


class Off:
    """An engine whose second action column is off by a hundredth of the normalised range."""

    def __init__(self, policy: Policy) -> None:
        self.name = "off"
        self._engine = policy.engine

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        actions = self._engine.run(inputs)["actions"].copy()
        actions[..., 1] *= 0.9
        return {"actions": actions}

    def close(self) -> None: ...


def test_an_engine_that_is_off_shows_in_its_column(directory: Path, written: Path) -> None:
    policy = load_policy(directory, "onnxruntime", threads=1)
    parity = read_parity(policy.bundle)
    assert parity is not None
    actions = parity_actions(Policy(policy.bundle, Off(policy)), parity.observations)
    apart = relative_difference(actions, parity, policy.bundle.statistics["action"])
    assert apart[1] == pytest.approx(0.1 * np.abs(parity.actions[..., 1]).max() / 2, rel=1e-4)
    assert np.count_nonzero(apart) == 1


def test_a_bundle_without_answers_brings_none(bundle_dir: Path) -> None:
    assert read_parity(load_bundle(bundle_dir)) is None


def test_a_damaged_file_and_one_of_another_bundle_are_refused(
    directory: Path, written: Path, tmp_path: Path
) -> None:
    whole = written.read_bytes()
    for damaged in (b"", whole[:200], whole[: len(whole) // 2], b"PK" + whole[40:]):
        written.write_bytes(damaged)
        with pytest.raises(QvlaError, match=PARITY_FILE):
            read_parity(load_bundle(directory))
    with np.load(io.BytesIO(whole)) as file:
        np.savez(
            written,
            **{
                **{name: file[name] for name in file.files},
                "bundle_id": np.array("feedfeedfeedfeed"),
            },
        )
    with pytest.raises(QvlaError, match="answers of bundle feedfeedfeedfeed"):
        read_parity(load_bundle(directory))
