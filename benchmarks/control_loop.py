"""Measures what a policy node adds to what rclpy and a thread cost anyway, in one run.

    python benchmarks/control_loop.py [--bundle DIR] [--rounds 6] [--seconds 10] [--rate_hz 9.7]

A fake robot streams images, joint states and poses from another process. Its rate makes images come
at every moment between two ticks of the control thread: to meet one costs half a millisecond. These
run in turn, for some seconds each:

    control      a policy node with the real engine, armed; its control thread decides and publishes
                 poses at 100 Hz
    events       the same, with `executor: events`
    plain        the same node without output, with inference as before, and a thread that only
                 keeps to 100 Hz
    bare_images  no policy: a plain rclpy node subscribes to the same images
    bare_inputs  the same node subscribes to all that the policy node needs: images, joint states,
                 pose

Compared are the periods of the two threads. Stamp to chunk less inference (and less all computing)
is compared with stamp to the last callback in the bare nodes. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from private_graph import private_graph
from qvla.msg import ActionChunk
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from qvla_ros.bundle import Bundle, load_bundle
from qvla_ros.errors import QvlaError
from qvla_ros.evaluation.processes import start, stopped_at_the_end
from qvla_ros.nodes import qos
from qvla_ros.nodes.chunk_message import stamp_ns
from qvla_ros.nodes.policy.control_loop import WINDOW_TICKS
from qvla_ros.nodes.policy.main import SWITCH_INTERVAL_S
from qvla_ros.nodes.policy.node import PolicyNode
from qvla_ros.nodes.process import make_executor
from qvla_ros.parameters.policy import EXECUTORS
from qvla_ros.testing.fault_drill import NAMESPACE, PARAMETERS

PERIOD_S = 0.01
COMPUTING = ("preprocess", "inference", "postprocess")
ARMING_S = 20.0
PERIODS = {
    "control": "control thread",
    "events": "control thread, events executor",
    "plain": "plain thread",
}
BARE = {
    "bare_images": "the last image's callback in a bare node",
    "bare_inputs": "the last input's callback in a bare node",
}
LATENCIES = {
    "receive_ms": 'a complete observation in the policy node (stage "receive")',
    "less_computing_ms": "the chunk, less preprocessing, inference and postprocessing",
    "less_inference_ms": "the chunk, less inference",
}


class Bench:
    """The nodes of this process.

    Each has an executor to itself, as in a process of its own: what `rclpy` spends on a message
    grows with all that its executor waits for.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.commanding = self._policy("commanding", {"output": "pose"})
        self.silent = self._policy("silent", {"output": "none"})
        self.watcher = rclpy.create_node("watcher", namespace=NAMESPACE)
        self.chunk_ms: list[dict[str, float]] = []
        for name in ("commanding", "silent"):
            self.watcher.create_subscription(
                ActionChunk, f"{name}/action_chunk", self._on_chunk, qos.COMMAND
            )
        self._watching = threading.Event()
        self._watching.set()
        self._watch_thread = threading.Thread(target=self._watch)
        self._watch_thread.start()

    def _policy(self, name: str, parameters: dict[str, Any]) -> PolicyNode:
        given = {
            **PARAMETERS,
            "bundle": str(self.bundle.directory),
            "backend": "onnxruntime",
            **parameters,
        }
        given["engine_options.threads"] = 1
        words = [
            word for key, value in given.items() for word in ("-p", f"{key}:={json.dumps(value)}")
        ]
        node = PolicyNode(
            ["--ros-args", "-r", f"__ns:=/{NAMESPACE}", "-r", f"__node:={name}", *words]
        )
        node.trigger_configure()
        return node

    def _watch(self) -> None:
        """Waits asleep until a chunk is out, so that it costs the policy node nothing."""
        executor = SingleThreadedExecutor()
        executor.add_node(self.watcher)
        while self._watching.is_set():
            executor.spin_once(timeout_sec=0.5)

    def _on_chunk(self, message: ActionChunk) -> None:
        self.chunk_ms.append(dict(zip(message.latency_names, message.latency_ms, strict=True)))

    def close(self) -> None:
        self._watching.clear()
        self._watch_thread.join()
        for node in (self.commanding, self.silent):
            node.say_goodbye()
            node.destroy_node()
        self.watcher.destroy_node()

    @contextmanager
    def active(
        self, node: PolicyNode, executor: str = EXECUTORS[0]
    ) -> Iterator[Callable[[float], None]]:
        """A node that is active, and armed as soon as its inputs have come.

        Gives a function that spins it for some seconds.
        """
        node.trigger_activate()
        with spinning(node, executor) as spin:
            end_s = time.monotonic() + ARMING_S
            while not node.armed:
                spin(0.2)
                try:
                    node.arm()
                except QvlaError:  # its inputs have not come yet
                    if time.monotonic() > end_s:
                        raise
            yield spin
        node.trigger_deactivate()


@contextmanager
def spinning(node: Node, kind: str = EXECUTORS[0]) -> Iterator[Callable[[float], None]]:
    """Spins only this node for some seconds in the calling thread."""
    executor = make_executor(kind)
    executor.add_node(node)

    def spin(seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            executor.spin_once(timeout_sec=0.05)

    yield spin
    executor.remove_node(node)


def control(bench: Bench, seconds: float, executor: str = EXECUTORS[0]) -> dict[str, Any]:
    """Measures p50, p99 and longest period of the control thread, ms, and the chunks' latencies."""
    with bench.active(bench.commanding, executor) as spin:
        bench.chunk_ms.clear()
        # so that no tick of the start is in the loop's window
        spin(max(seconds, WINDOW_TICKS * PERIOD_S))
        snapshot = bench.commanding.snapshot()
    if not bench.chunk_ms:
        raise SystemExit(
            f"no chunk in {seconds:g} s: "
            f"{snapshot.reason or snapshot.stop_reason or 'the machine is too busy'}"
        )
    loop = snapshot.loop
    assert loop is not None
    return {
        "periods_ms": (loop.p50_ms, loop.p99_ms, loop.max_ms),
        "less_inference_ms": [c["total"] - c["inference"] for c in bench.chunk_ms],
        "less_computing_ms": [
            c["total"] - sum(c[stage] for stage in COMPUTING) for c in bench.chunk_ms
        ],
        "inference_ms": [c["inference"] for c in bench.chunk_ms],
        "receive_ms": [c["receive"] for c in bench.chunk_ms],
        "stages_ms": {
            name: float(np.median([c[name] for c in bench.chunk_ms])) for name in bench.chunk_ms[-1]
        },
        "stop_reason": snapshot.stop_reason,
    }


def events(bench: Bench, seconds: float) -> dict[str, Any]:
    return control(bench, seconds, "events")


def plain(bench: Bench, seconds: float) -> dict[str, Any]:
    """Measures the same of a thread that only keeps its deadlines, next to the same inference."""
    periods_s: list[float] = []

    def keep_time() -> None:
        deadline_s = last_s = time.monotonic()
        while not done.is_set():
            deadline_s = max(deadline_s + PERIOD_S, time.monotonic())
            time.sleep(max(0.0, deadline_s - time.monotonic()))
            now_s = time.monotonic()
            periods_s.append(now_s - last_s)
            last_s = now_s

    with bench.active(bench.silent) as spin:
        bench.chunk_ms.clear()
        done = threading.Event()
        thread = threading.Thread(target=keep_time)
        thread.start()
        spin(max(seconds, WINDOW_TICKS * PERIOD_S))
        done.set()
        thread.join()
    p50, p99, longest = np.percentile(1e3 * np.array(periods_s), (50, 99, 100))
    return {"periods_ms": (p50, p99, longest), "chunks": len(bench.chunk_ms)}


def bare_images(bench: Bench, seconds: float) -> dict[str, Any]:
    """Measures the ms from an observation's stamp to its last image's callback in a plain node."""
    return _bare(bench, seconds, {})


def bare_inputs(bench: Bench, seconds: float) -> dict[str, Any]:
    """Measures the same to the last callback of all messages that the policy node waits for."""
    return _bare(bench, seconds, {"joint_states": JointState, "ee_pose": PoseStamped})


def _bare(bench: Bench, seconds: float, states: dict[str, Any]) -> dict[str, Any]:
    topics = {
        **{f"camera/{camera.name}/image_raw": Image for camera in bench.bundle.cameras},
        **states,
    }
    arrived: dict[int, list[int]] = {}

    def callback(message):
        return arrived.setdefault(stamp_ns(message.header.stamp), []).append(time.time_ns())

    node = rclpy.create_node("bare", namespace=NAMESPACE)
    for topic, kind in topics.items():
        node.create_subscription(kind, topic, callback, qos.SENSOR)
    with spinning(node) as spin:
        spin(0.5)
        arrived.clear()
        spin(seconds)
    node.destroy_node()
    return {
        "last_ms": [
            1e-6 * (max(at) - stamp) for stamp, at in arrived.items() if len(at) == len(topics)
        ]
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate_hz", type=float, default=9.7)
    parser.add_argument("--switch_interval_s", type=float, default=SWITCH_INTERVAL_S)
    args = parser.parse_args()
    sys.setswitchinterval(args.switch_interval_s)
    with private_graph(args.bundle) as graph:
        rclpy.init(domain_id=graph.domain_id)
        words = [
            "-m",
            "qvla_ros.testing.fake_robot",
            "--bundle",
            str(graph.bundle),
            "--namespace",
            NAMESPACE,
            "--rate_hz",
            str(args.rate_hz),
        ]
        robot = start("fake_robot", words, graph.environment, graph.scratch)
        kinds = (control, events, plain, bare_images, bare_inputs)
        phases: dict[str, list[dict[str, Any]]] = {kind.__name__: [] for kind in kinds}
        with stopped_at_the_end([robot]):
            bench = Bench(load_bundle(graph.bundle))
            for number in range(args.rounds):
                for phase in kinds:
                    phases[phase.__name__].append(phase(bench, args.seconds))
                print(f"round {number + 1} of {args.rounds}", flush=True)
            bench.close()
        rclpy.try_shutdown()
    report(phases)


def report(phases: dict[str, list[dict[str, Any]]]) -> None:
    """Prints both tables: medians over the rounds of periods, all rounds together of latencies."""

    def periods(phase: str) -> list[float]:
        return [
            round(float(v), 2) for v in np.median([r["periods_ms"] for r in phases[phase]], axis=0)
        ]

    def quantiles(phase: str, name: str) -> list[float]:
        return [
            round(float(v), 2)
            for v in np.percentile([v for r in phases[phase] for v in r[name]], (50, 90, 99))
        ]

    nodes = ("control", "events")
    latencies = {
        **{name: quantiles(name, "last_ms") for name in ("bare_images", "bare_inputs")},
        **{f"{phase} {name}": quantiles(phase, name) for phase in nodes for name in LATENCIES},
    }
    print("| period of | p50 ms | p99 ms | longest ms |\n|---|---|---|---|")
    for phase, label in PERIODS.items():
        print(f"| {label} | {' | '.join(str(v) for v in periods(phase))} |")
    print("| stamp to | p50 ms | p90 ms | p99 ms | p50 over bare images | over bare inputs |")
    print("|---|---|---|---|---|---|")
    for name, values in latencies.items():
        phase, _, latency = name.partition(" ")
        label = (
            f"{LATENCIES[latency]}{', events executor' * (phase == 'events')}"
            if latency
            else BARE[name]
        )
        ratios = [values[0] / latencies[bare][0] for bare in BARE]
        print(
            f"| {label} | {' | '.join(str(v) for v in values)} | {ratios[0]:.2f} | "
            f"{ratios[1]:.2f} |"
        )
    summary = {
        phase: {
            "p99_over_plain_by_round": [
                round(float(a["periods_ms"][1] / b["periods_ms"][1]), 3)
                for a, b in zip(phases[phase], phases["plain"], strict=True)
            ],
            "chunks": [len(r["inference_ms"]) for r in phases[phase]],
            "stages_ms": {
                n: round(float(np.median([r["stages_ms"][n] for r in phases[phase]])), 2)
                for n in phases[phase][0]["stages_ms"]
            },
            "stop_reasons": [r["stop_reason"] for r in phases[phase]],
        }
        for phase in nodes
    }
    print(json.dumps({"latencies_ms": latencies, **summary}))


if __name__ == "__main__":
    main()
