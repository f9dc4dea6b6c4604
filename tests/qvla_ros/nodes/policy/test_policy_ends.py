"""How the policy node's process ends: whatever ends it, the arm gets a stop first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.nodes.policy import main as policy
from qvla_ros.nodes.process import Interrupted
from qvla_ros.parameters.policy import ModelParameters, PolicyParameters


def _raise(error: BaseException) -> Callable[..., None]:
    def spin(node: object, executor: object, is_over: object) -> None:
        raise error

    return spin


class Watched:
    """A node that notes what becomes of it."""

    def __init__(self) -> None:
        self.parameters = PolicyParameters(model=ModelParameters(autostart=False))
        self.ends: list[str] = []
        made.append(self)

    def get_logger(self) -> Watched:
        return self

    def info(self, text: str) -> None:
        pass

    def say_goodbye(self) -> None:
        self.ends.append("goodbye")

    def destroy_node(self) -> None:
        self.ends.append("destroyed")


made: list[Watched] = []


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a callback"), QvlaError("a", "b", "c", "d"), Interrupted(2)]
)
def test_the_arm_is_stopped_before_the_node_goes(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(policy, "PolicyNode", Watched)
    monkeypatch.setattr(policy, "ignore_signals", lambda: None)
    monkeypatch.setattr(policy, "make_executor", lambda kind: None)
    monkeypatch.setattr(policy, "spin", _raise(error))
    if isinstance(error, Interrupted):
        assert policy.serve() == 0
    else:
        with pytest.raises(type(error)):
            policy.serve()
    assert made.pop().ends == ["goodbye", "destroyed"]
