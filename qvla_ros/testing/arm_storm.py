"""Calls a policy node that stalls: to arm again and again, then to stop. It must end disarmed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from qvla_ros.control.arm_order import JUST_AFTER_S
from qvla_ros.nodes.policy.node import PolicyNode
from qvla_ros.nodes.process import destroy, make_executor

PATIENCE_S = 60.0
MOST_CALLS = 6
ARRIVAL_S = 0.02  # until what was called has reached a node that does not look


class StormBench:
    """An active policy node without an output, and clients; nothing spins but on demand."""

    def __init__(self, node: PolicyNode, executor: Any, caller: Node, callers: Any) -> None:
        self._node = node
        self._executors = (executor, callers)
        self._arm: list[Any] = [caller.create_client(SetBool, "/x/policy/arm") for _ in range(2)]
        self._cancel: Any = caller.create_client(Trigger, "/x/policy/cancel")
        self._wait(lambda: all(c.service_is_ready() for c in (*self._arm, self._cancel)))

    def storm(self, seed: int) -> tuple[bool, int]:
        """Whether the node is armed after the calls of one stall, the last of them a stop, and how
        many of those to arm succeeded.
        """
        draw = random.Random(seed)
        time.sleep(1.1 * JUST_AFTER_S)  # what came before is no reason to refuse
        calls = [
            draw.choice(self._arm).call_async(SetBool.Request(data=draw.random() < 0.8))
            for _ in range(draw.randint(1, MOST_CALLS))
        ]
        time.sleep(ARRIVAL_S * draw.random())
        if draw.random() < 0.8:
            last = self._cancel.call_async(Trigger.Request())
        else:
            last = self._arm[0].call_async(SetBool.Request(data=False))
        time.sleep(ARRIVAL_S)
        self._wait(lambda: all(call.done() for call in (*calls, last)))
        return self._node.armed, sum(call.result().message == "armed" for call in calls)

    def arm(self) -> bool:
        """Whether it arms when nobody stops it."""
        time.sleep(1.1 * JUST_AFTER_S)
        call = self._arm[0].call_async(SetBool.Request(data=True))
        self._wait(call.done)
        return self._node.armed

    def _wait(self, condition: Any) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end_s
            for executor in self._executors:
                executor.spin_once(timeout_sec=0.002)


@contextmanager
def storm_bench(context: Context, bundle_dir: Path, kind: str) -> Iterator[StormBench]:
    """kind: of the node's executor. The context must be the default one."""
    arguments = ["--ros-args", "-p", f"bundle:={bundle_dir}", "-p", "backend:=zero"]
    node = PolicyNode(cli_args=[*arguments, "-r", "__ns:=/x"])
    assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    executor = make_executor(kind)
    executor.add_node(node)
    caller = Node("caller", context=context)
    callers = SingleThreadedExecutor(context=context)
    callers.add_node(caller)
    try:
        yield StormBench(node, executor, caller, callers)
    finally:
        destroy(caller, callers)
        node.release()
        destroy(node, executor)
