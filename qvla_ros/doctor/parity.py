"""Checks that a policy's actions are the same here as where it was exported.

The bundle keeps observations and the actions for them in `parity.npz`. That file is, like a plan,
no part of the bundle's identity: the actions' last digits depend on the machine. The observations
are made up (squares of random colour, numbers from the training range); they mean nothing, but the
actions agree only if every step from pixels to actions does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qvla_ros.atomic import atomic_file
from qvla_ros.bundle import Bundle, CameraSpec, Statistics
from qvla_ros.errors import QvlaError
from qvla_ros.observation import Observation
from qvla_ros.policy import Policy

PARITY_FILE = "parity.npz"
_INSTRUCTIONS = ("pick up the milk and place it in the basket", "put both cups on the shelf")
_SQUARE = 16  # pixels; resampling, cropping and JPEG each blur the edges in their own way


@dataclass(frozen=True)
class Parity:
    """Observations, and the actions float64 [N, K, A] that `engine` gave for them in turn."""

    bundle_id: str
    engine: str
    observations: tuple[Observation, ...]
    actions: NDArray[np.float64]


def parity_observations(bundle: Bundle) -> tuple[Observation, ...]:
    """Makes up observations, always the same for the same bundle."""
    return tuple(_observation(bundle, text, seed) for seed, text in enumerate(_INSTRUCTIONS))


def parity_actions(policy: Policy, observations: Sequence[Observation]) -> NDArray[np.float64]:
    """The actions of a policy that was just loaded, float64 [N, K, A].

    A policy that has run may have drawn noise, and would give others.
    """
    return np.stack([policy.infer(observation).actions for observation in observations])


def write_parity(policy: Policy) -> Path:
    """Runs a policy that was just loaded, and keeps its actions in its bundle; returns the file."""
    bundle = policy.bundle
    path = bundle.directory / PARITY_FILE
    observations = parity_observations(bundle)
    arrays = {
        f"image_{c.name}": np.stack([o.images[c.name] for o in observations])
        for c in bundle.cameras
    }
    actions = parity_actions(policy, observations)
    with atomic_file(path) as temporary:
        np.savez_compressed(
            temporary,
            bundle_id=np.array(bundle.bundle_id),
            engine=np.array(policy.engine.name),
            instructions=np.array([o.instruction for o in observations]),
            proprioception=np.stack([o.proprioception for o in observations]),
            actions=actions,
            **arrays,
        )
    return path


def read_parity(bundle: Bundle) -> Parity | None:
    """Reads the bundle's file; None without one, QvlaError if damaged or of another bundle."""
    path = bundle.directory / PARITY_FILE
    if not path.is_file():
        return None
    fix = (
        "copy the bundle again, or write the file anew where it was exported: `qvla "
        "doctor --write_parity`"
    )
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        found = str(arrays["bundle_id"])
        images = {camera.name: arrays[f"image_{camera.name}"] for camera in bundle.cameras}
        observations = tuple(
            Observation(
                {name: images[name][i] for name in images},
                arrays["proprioception"][i],
                str(text),
                0,
                {},
            )
            for i, text in enumerate(arrays["instructions"])
        )
        parity = Parity(
            found, str(arrays["engine"]), observations, arrays["actions"].astype(np.float64)
        )
        expected = (len(observations), *actions_shape(bundle))
        if parity.actions.shape != expected:
            raise ValueError(f"actions {parity.actions.shape}, not {expected}")
    except Exception as error:  # zip, zlib and numpy's headers fail in a dozen ways
        raise QvlaError(
            str(path), f"{type(error).__name__}: {error}", "observations and answers", fix
        ) from None
    if found != bundle.bundle_id:
        raise QvlaError(
            str(path), f"answers of bundle {found}", f"answers of {bundle.bundle_id}", fix
        )
    return parity


def actions_shape(bundle: Bundle) -> tuple[int, int]:
    """[T, A] of a chunk."""
    return bundle.actions.chunk_length, len(bundle.actions.names)


def relative_difference(
    actions: NDArray[np.float64], parity: Parity, statistics: Statistics
) -> NDArray[np.float64]:
    """Largest difference to the kept actions by column [A], as a fraction of the training range."""
    spread = statistics.high - statistics.low
    return np.abs(actions - parity.actions).max(axis=(0, 1)) / np.where(spread > 0, spread, 1.0)


def _observation(bundle: Bundle, text: str, seed: int) -> Observation:
    random = np.random.default_rng(seed)
    images = {camera.name: _squares(camera, random) for camera in bundle.cameras}
    known = bundle.statistics.get("proprio")
    proprioception = (
        np.zeros(0)
        if known is None
        else known.low + (known.high - known.low) * random.random(len(known.low))
    )
    return Observation(images, proprioception, text, 0, {})


def _squares(camera: CameraSpec, random: np.random.Generator) -> NDArray[np.uint8]:
    rows = -(-camera.height // _SQUARE)
    columns = -(-camera.width // _SQUARE)
    colours = random.integers(0, 256, (rows, columns, 3), np.uint8)
    return colours.repeat(_SQUARE, 0).repeat(_SQUARE, 1)[: camera.height, : camera.width]
