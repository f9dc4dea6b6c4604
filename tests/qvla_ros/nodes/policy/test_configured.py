"""What is configured is whole or not there: a configure that fails leaves no engine open."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from qvla_ros.control.stop_reason import StopReason
from qvla_ros.errors import QvlaError
from qvla_ros.nodes.policy import configured
from qvla_ros.nodes.policy.commands import ChunksOnly, Sources
from qvla_ros.nodes.policy.figures import NOTHING_COMMANDED, CommandFigures
from qvla_ros.parameters.policy import PolicyParameters
from qvla_ros.parameters.table import from_values


class FakePolicy:
    def __init__(self, happened: list[str], error: Exception | None = None) -> None:
        self.bundle = SimpleNamespace(actions=None)
        self._happened = happened
        self._error = error

    def warm_up(self) -> None:
        self._happened.append("warm")
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._happened.append("closed")


class FakeCommander:
    def __init__(self, node: Any, *_: Any) -> None:
        self._happened = node.happened
        if node.refuses:
            raise QvlaError("parameter joints", "none", "seven", "name them")

    def destroy(self) -> None:
        self._happened.append("commands destroyed")


def make_node(refuses: bool = False) -> Any:
    return SimpleNamespace(
        happened=[],
        refuses=refuses,
        create_lifecycle_publisher=lambda *_, **__: "chunks",
        destroy_lifecycle_publisher=lambda publisher: None,
    )


def configure(node: Any, monkeypatch: pytest.MonkeyPatch, error: Any, **values: Any) -> Any:
    monkeypatch.setattr(configured, "Commander", FakeCommander)
    policy = FakePolicy(node.happened, error)
    monkeypatch.setattr(configured, "load_policy", lambda *_, **__: policy)
    parameters = from_values(PolicyParameters, {"bundle": "DIR", **values})
    return configured.configure(node, parameters, NOTHING_COMMANDED)


def test_an_output_that_does_not_fit_closes_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(refuses=True)
    with pytest.raises(QvlaError, match="joints"):
        configure(node, monkeypatch, None, output="joint_trajectory")
    assert node.happened == ["closed"]


def test_an_engine_that_fails_to_warm_up_takes_the_publishers_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = make_node()
    with pytest.raises(RuntimeError, match="out of memory"):
        configure(node, monkeypatch, RuntimeError("out of memory"), output="pose")
    assert node.happened == ["warm", "commands destroyed", "closed"]


def test_what_is_configured_stays_open_until_it_is_destroyed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = make_node()
    made = configure(node, monkeypatch, None, output="pose")
    assert node.happened == ["warm"]
    made.destroy(node)
    assert node.happened == ["warm", "commands destroyed", "closed"]


def test_a_bundle_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QvlaError, match="parameter bundle: got nothing"):
        configure(make_node(), monkeypatch, None, bundle="")


def test_without_an_output_arming_marks_chunks_and_every_end_takes_the_mark_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = configure(make_node(), monkeypatch, None).commands
    assert isinstance(commands, ChunksOnly)
    ends = (
        lambda: commands.start(Sources(lambda: None, lambda: "", lambda: 0.0)),
        lambda: commands.disarm(StopReason.cancelled),
        lambda: commands.finish(StopReason.deactivated),
    )
    for end in ends:
        commands.arm()
        assert commands.armed
        end()
        assert not commands.armed
        assert not commands.is_stopping()
    assert commands.figures() == CommandFigures()
    assert commands.plan_ahead()[1].shape == (0, 0)
