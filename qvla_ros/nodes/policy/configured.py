"""The parts of the policy node from configure to clean-up: a warm policy, and publishers."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from qvla.msg import ActionChunk
from rclpy.lifecycle import LifecycleNode

from qvla_ros.errors import QvlaError
from qvla_ros.nodes import qos
from qvla_ros.nodes.policy.commander import Commander
from qvla_ros.nodes.policy.commands import ChunksOnly, Commands
from qvla_ros.nodes.policy.figures import CommandFigures
from qvla_ros.parameters.policy import PolicyParameters
from qvla_ros.policy import Policy, load_policy


@dataclass(frozen=True)
class Configured:
    """chunks: the publisher of ~/action_chunk."""

    policy: Policy
    commands: Commands
    chunks: Any

    def destroy(self, node: LifecycleNode) -> None:
        """Ends the publishers and closes the engine, which must not be in use."""
        self.commands.destroy()
        self.policy.close()
        node.destroy_lifecycle_publisher(self.chunks)


def configure(
    node: LifecycleNode, parameters: PolicyParameters, earlier: CommandFigures
) -> Configured:
    """Verifies the bundle, loads the engine and warms it up. earlier: what has been commanded.

    QvlaError on a bundle or parameters that cannot be used; then nothing is left open.
    """
    model = parameters.model
    if not model.bundle:
        raise QvlaError(
            "parameter bundle", "nothing", "the directory of a bundle", "-p bundle:=DIR"
        )
    policy = load_policy(model.bundle, model.backend, **model.engine_options)
    with ExitStack() as undo:
        undo.callback(policy.close)
        commands: Commands = ChunksOnly(earlier)
        if parameters.commands.output != "none":
            commands = Commander(node, parameters, policy.bundle.actions, earlier)
        undo.callback(commands.destroy)
        policy.warm_up()
        chunks = node.create_lifecycle_publisher(
            ActionChunk, "~/action_chunk", **qos.published(qos.COMMAND)
        )
        undo.pop_all()
    return Configured(policy, commands, chunks)
