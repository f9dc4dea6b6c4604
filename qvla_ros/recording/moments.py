"""Finds the messages of a bag that make one observation, by their stamps or by a recorded chunk."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qvla_ros.errors import QvlaError, QvlaWarning
from qvla_ros.observation import Samples, Synchronizer, Waiting
from qvla_ros.recording.bag import Bag, header_stamp_ns
from qvla_ros.recording.source import EXAMPLE, BagSource, InputTopics

# How far back a stream is searched for the messages that go with another stream's late one.
_HISTORY_S = 1.0
_NO_MESSAGES = "there are no messages"


@dataclass(frozen=True)
class Moment:
    """The messages of one observation.

    messages: topic -> index of the message among those of the topic. stamps_ns: topic -> its stamp.
    stamp_ns: of the newest image.
    """

    messages: Mapping[str, int]
    stamps_ns: Mapping[str, int]
    stamp_ns: int
    instruction: str


def synchronized_moments(bag: Bag, source: BagSource, topics: InputTopics) -> list[Moment]:
    """The moments at which a policy node would have had a complete observation.

    QvlaError if there is none; it names what the last one lacked. Warns of images that made none.
    """
    synchronizer = Synchronizer(
        topics.stamped(), source.max_spread_s, max(_HISTORY_S, 2 * source.max_spread_s)
    )
    counts: Counter[str] = Counter()
    unstamped: Counter[str] = Counter()
    latest_ns: dict[str, int] = {}
    now_ns = 0
    text = source.instruction
    moments = []
    reason = _NO_MESSAGES
    for message in bag.messages(
        [*topics.stamped(), *filter(None, (topics.instruction,))], "stamps"
    ):
        topic = message.topic
        if topic == topics.instruction:
            text = bag.decode(message).data
            continue
        stamp_ns = header_stamp_ns(message)
        # Stamps of one stream that go back mean that the clock did (a simulation was reset); those
        # of different streams overlap anyway.
        now_ns = stamp_ns if stamp_ns < latest_ns.get(topic, 0) else max(now_ns, stamp_ns)
        latest_ns[topic] = stamp_ns
        unstamped[topic] += stamp_ns == 0
        synchronizer.put(topic, stamp_ns, counts[topic])
        counts[topic] += 1
        if topic not in topics.cameras:
            continue
        found = synchronizer.collect(now_ns)
        if isinstance(found, Waiting):
            reason = found.reason
        elif isinstance(found, Samples) and text is None:
            reason = f"no instruction yet on {topics.instruction}"
        elif isinstance(found, Samples) and text is not None:
            newest_ns = max(found.stamps_ns[camera] for camera in topics.cameras)
            moments.append(Moment(dict(found.values), dict(found.stamps_ns), newest_ns, text))
    reason = _why(reason, unstamped)
    if not moments:
        _refuse(bag.path, reason)
    possible = min(counts.values())
    if len(moments) < possible:
        text = f"{bag.path}: {len(moments)} of {possible} moments are used; left out: {reason}"
        warnings.warn(text, QvlaWarning, stacklevel=2)
    return moments


def _why(reason: str, unstamped: Mapping[str, int]) -> str:
    """The reason that was found last, unless messages without a stamp explain it."""
    without = [f"{count} messages on {topic}" for topic, count in unstamped.items() if count]
    if without:
        return f"the header of {', '.join(without)} has no stamp; let the driver set it"
    return "their stamps are not later than those before" if reason == _NO_MESSAGES else reason


def _refuse(path: Path, reason: str) -> None:
    fix = f"check the stamps, or raise max_spread_s in a YAML file like {EXAMPLE}"
    raise QvlaError(f"{path}: observations", reason, "a moment with a message of every topic", fix)


@dataclass(frozen=True)
class Stamped:
    """A message of a stream: its index in the stream, and when it reached the recorder."""

    index: int
    received_ns: int


StampIndex = Mapping[str, Mapping[int, list[Stamped]]]  # topic -> stamp (ns) -> messages with it


def index_stamps(bag: Bag, topics: Iterable[str]) -> StampIndex:
    """Finds the messages of each topic by their stamps."""
    found: dict[str, dict[int, list[Stamped]]] = {topic: defaultdict(list) for topic in topics}
    counts: Counter[str] = Counter()
    for message in bag.messages(list(found), "stamps"):
        place = Stamped(counts[message.topic], message.received_ns)
        found[message.topic][header_stamp_ns(message)].append(place)
        counts[message.topic] += 1
    return found


def moment_of(
    stamps_ns: Mapping[str, int],
    received_ns: int,
    instruction: str,
    topics: InputTopics,
    index: StampIndex,
) -> Moment | str:
    """The moment whose samples have these stamps (topic -> ns); else why there is none.

    received_ns: when the chunk that names them arrived. Of several messages with one stamp (a
    simulation was reset) the one that arrived nearest to that is taken.
    """
    messages = {}
    for topic in topics.stamped():
        if topic not in stamps_ns:
            return (
                f"it was not computed from {topic}, but from "
                f"{', '.join(stamps_ns) or 'what it does not say'}"
            )
        places = index[topic].get(stamps_ns[topic])
        if not places:
            return (
                f"the bag lacks the message on {topic} that was stamped "
                f"{stamps_ns[topic] * 1e-9:.6f} s"
            )
        messages[topic] = min(places, key=lambda place: abs(place.received_ns - received_ns)).index
    newest_ns = max(stamps_ns[camera] for camera in topics.cameras)
    return Moment(messages, {topic: stamps_ns[topic] for topic in messages}, newest_ns, instruction)
