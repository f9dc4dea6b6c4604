"""Options about simulated time that goes on, the same for every verb that runs episodes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from qvla_ros.errors import QvlaError
from qvla_ros.simulation.faults import parse_faults
from qvla_ros.simulation.real_time import HANDOVERS, MEASURED, RealTime

Value = TypeVar("Value")


def add_real_time_options(parser: argparse.ArgumentParser, observation_period_s: float) -> None:
    """--blend_steps, --observation_period_s (with this default) and --faults."""
    parser.add_argument(
        "--blend_steps",
        type=int,
        default=0,
        help="steps over which a chunk takes over from the last",
    )
    parser.add_argument(
        "--observation_period_s",
        type=float,
        default=observation_period_s,
        help="shortest simulated time from image to image; 0: the newest image as soon as "
        "the policy is free",
    )
    parser.add_argument(
        "--faults",
        default="",
        help="injected in every episode, comma-separated, e.g. drop_camera:agentview@2.0+0.5",
    )


def real_time_of(args: argparse.Namespace, latencies_s: str, handovers: str) -> RealTime:
    """Reads the options; QvlaError on options that have no effect."""
    faults = tuple(text.strip() for text in args.faults.split(",") if text.strip())
    parse_faults(faults)
    real_time = RealTime(
        latencies_s=_list("latencies_s", latencies_s, _latency_s),
        handovers=_list("handovers", handovers, str),
        blend_steps=args.blend_steps,
        observation_period_s=args.observation_period_s,
        faults=faults,
    )
    if args.blend_steps < 0 or args.observation_period_s < 0:
        value = (args.blend_steps, args.observation_period_s)
        raise QvlaError(
            "blend_steps, observation_period_s", value, "0 or more", "give counts and seconds"
        )
    real_time.conditions()  # refuses what means nothing
    return real_time


def refuse_without_real_time(args: argparse.Namespace, defaults: argparse.Namespace) -> None:
    """Refuses changed options that have no effect while the simulation waits for the policy."""
    for name in ("handover", "blend_steps", "observation_period_s", "faults"):
        if getattr(args, name) != getattr(defaults, name):
            raise QvlaError(
                name, getattr(args, name), "--latency_s with it", "for example --latency_s measured"
            )


def _latency_s(text: str) -> float:
    return MEASURED if text == "measured" else float(text)


def _list(name: str, text: str, kind: Callable[[str], Value]) -> tuple[Value, ...]:
    try:
        values = tuple(kind(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        values = ()
    if not values or len(set(values)) != len(values):
        example = "0,0.1,0.2" if name == "latencies_s" else ",".join(HANDOVERS)
        raise QvlaError(
            name, text, "distinct values, comma-separated", f"for example --{name} {example}"
        )
    return values
