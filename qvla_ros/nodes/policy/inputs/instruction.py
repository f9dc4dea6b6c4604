"""The instruction topic, and which instruction is in force."""

from __future__ import annotations

from collections.abc import Callable

from std_msgs.msg import String

from qvla_ros.errors import QvlaError
from qvla_ros.nodes import qos
from qvla_ros.nodes.policy.inputs.streams import Streams


class InstructionInput:
    """hear(text) is called with every text that is not empty.

    It raises a QvlaError if the text cannot be followed. in_force: the instruction that is given to
    observations, None for none.
    """

    def __init__(self, streams: Streams, hear: Callable[[str], None]) -> None:
        self._streams = streams
        self._hear = hear
        self._heard: str | None = None  # the last usable text
        self._followed = False  # any instruction yet
        self.in_force: str | None = None
        self._topic = streams.subscribe(String, "instruction", self._on_text, qos.LATCHED)

    def follow(self, instruction: str | None) -> None:
        """Puts this instruction in force; None: none."""
        self.in_force = instruction
        self._followed |= instruction is not None

    def lack(self) -> str:
        """Why there is none in force, and what to do; empty if there is."""
        topic = self._topic
        if self.in_force is not None:
            return ""
        if self._followed:
            return (
                "the last task is over: send another goal, call ~/start, or publish an "
                f"instruction on {topic}"
            )
        return (
            f"no instruction received yet on {topic}: publish a std_msgs/String there, "
            "reliable and transient local, "
            f"e.g. ros2 topic pub --qos-durability transient_local {topic} std_msgs/String "
            "\"data: 'pick up the milk'\""
        )

    def _on_text(self, message: String) -> None:
        topic = self._topic
        if not message.data.strip():
            # No concern of a goal, which has brought its own instruction, nor while one is yet to
            # come.
            if self.in_force is not None and self.in_force == self._heard:
                self._streams.refuse(
                    topic, f"empty text on {topic}; expected a sentence that names the task"
                )
            return
        try:
            self._hear(message.data)
        except QvlaError as error:
            self._streams.refuse(topic, f"on {topic}: {error}")
            return
        self._heard = message.data
        self._streams.accept(topic)
        self._streams.advance()
