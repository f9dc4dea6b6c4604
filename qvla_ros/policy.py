"""A policy: observation in, un-normalised and limited action chunk out.

Knows nothing of ROS; one caller at a time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qvla_ros.actions import robot_actions
from qvla_ros.bundle import Bundle, PromptSpec, load_bundle
from qvla_ros.decoding import make_decoder
from qvla_ros.engines import Engine, load_engine
from qvla_ros.errors import QvlaError
from qvla_ros.observation import Observation
from qvla_ros.preprocess import image_tensor, normalize_proprioception, prompt_ids
from qvla_ros.safety import action_limits, clip_to_limits, require_finite
from qvla_ros.tokenizer import read_tokenizer
from qvla_ros.training_range import nearest_orientation, require_known_state

WARM_UP_RUNS = 2  # the first run of an engine allocates and tunes; the second shows that it is over


@dataclass(frozen=True)
class Prediction:
    """The result of one inference.

    actions: float64 [K, A] in the bundle's units, finite and within limits. latency_ms: stage ->
    milliseconds, on the monotonic clock. clipped: how many entries of each column the limits
    changed, int [A].
    """

    actions: NDArray[np.float64]
    latency_ms: Mapping[str, float]
    clipped: NDArray[np.int64]


class Policy:
    """The bundle's preprocessing and conventions around an engine that runs its graph."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle = bundle
        self.engine = engine
        # Its hash was checked, and export has read it: what differs is the library.
        fix = "install the release of `tokenizers` that environment/constraints.txt names"
        self._tokenizer = read_tokenizer(bundle.directory / "tokenizer.json", fix)
        self._decoder = make_decoder(bundle, self._tokenizer)
        self._low, self._high = action_limits(bundle)
        self._prompt: tuple[PromptSpec, str, NDArray[np.int64]] | None = None
        self._forget = False

    def graph_inputs(self, observation: Observation) -> dict[str, NDArray]:
        """The arrays of the policy graph (docs/architecture.md).

        QvlaError names the input that does not fit.
        """
        images = [
            image_tensor(camera, observation.images[camera.name]) for camera in self.bundle.cameras
        ]
        inputs: dict[str, NDArray] = {"pixel_values": np.concatenate(images)[None]}
        inputs["input_ids"] = self._prompt_ids(observation.instruction)
        if self.bundle.proprioception is not None:
            require_finite(observation.proprioception, "proprioception")
            statistics = self.bundle.statistics["proprio"]
            state = nearest_orientation(
                self.bundle.proprioception.names,
                observation.proprioception,
                statistics.low,
                statistics.high,
            )
            normalized = normalize_proprioception(
                state, statistics.low, statistics.high, statistics.mask
            )
            inputs["proprio"] = normalized.astype(np.float32)[None]
        return inputs

    def infer(self, observation: Observation) -> Prediction:
        """Runs the policy once.

        QvlaError on an input that does not fit and on an output that is not finite.
        """
        started = time.perf_counter()
        if self._forget:
            self._forget = False
            self._decoder.reset()
        inputs = self.graph_inputs(observation)
        prepared = time.perf_counter()
        normalized = self._decoder.run(self.engine, inputs)
        inferred = time.perf_counter()
        spec = self.bundle.actions
        expected = (1, spec.chunk_length, len(spec.names))
        if normalized.shape != expected:
            fix = "export the bundle again: its graph and its manifest disagree"
            raise QvlaError(
                "the policy graph's actions", list(normalized.shape), str(list(expected)), fix
            )
        actions = robot_actions(
            normalized[0], spec, self.bundle.statistics["action"], self._decoder.range_epsilon
        )
        require_finite(actions, "actions")
        actions, clipped = clip_to_limits(actions, self._low, self._high)
        stages = (prepared - started, inferred - prepared, time.perf_counter() - inferred)
        names = ("preprocess", "inference", "postprocess")
        return Prediction(
            actions, {name: 1e3 * s for name, s in zip(names, stages, strict=True)}, clipped
        )

    def warm_up(self) -> None:
        """Runs on grey images and the middle of the training data, as first runs may be slow.

        The results are forgotten. An engine that needs no warm-up is not run.
        """
        if not self.engine.needs_warm_up:
            return
        images = {
            c.name: np.full((c.height, c.width, 3), 128, np.uint8) for c in self.bundle.cameras
        }
        proprio = self.bundle.statistics.get("proprio")
        middle = np.zeros(0) if proprio is None else 0.5 * (proprio.low + proprio.high)
        for _ in range(WARM_UP_RUNS):
            self._decoder.run(
                self.engine, self.graph_inputs(Observation(images, middle, "warm up", 0, {}))
            )
        self._decoder.reset()

    def require_instruction(self, instruction: str) -> None:
        """Raises QvlaError unless the prompt of the instruction fits the graph. From any thread."""
        prompt_ids(self.bundle.prompt, self._tokenizer, instruction)

    def require_known_state(self, proprioception: NDArray[np.float64]) -> None:
        """Raises QvlaError where the robot's state is far from all that the policy was trained on.

        From any thread.
        """
        spec = self.bundle.proprioception
        if spec is not None:
            low = self.bundle.statistics["proprio"].low
            high = self.bundle.statistics["proprio"].high
            state = nearest_orientation(spec.names, proprioception, low, high)
            require_known_state(spec.names, state, low, high)

    def reset(self) -> None:
        """Forgets what earlier observations left behind, before the next one: a new episode begins.

        From any thread.
        """
        self._forget = True

    def close(self) -> None:
        self.engine.close()

    def _prompt_ids(self, instruction: str) -> NDArray[np.int64]:
        prompt = self._decoder.prompt(instruction)
        if self._prompt is None or self._prompt[:2] != (prompt, instruction):
            self._prompt = prompt, instruction, prompt_ids(prompt, self._tokenizer, instruction)
        return self._prompt[2]


def load_policy(bundle_dir: str | Path, backend: str, **options: object) -> Policy:
    """Verifies the bundle and loads its graph into `backend`. Raises QvlaError if either fails.

    backend: one of qvla_ros.engines.BACKENDS.
    """
    bundle = load_bundle(bundle_dir)
    return Policy(bundle, load_engine(bundle, backend, **options))
