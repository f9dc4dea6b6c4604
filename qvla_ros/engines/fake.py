"""Stand-ins for a policy, to try out a robot's wiring: zero, sine, replay. They look at nothing; their names say so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qvla_ros.errors import QvlaError

if TYPE_CHECKING:
    from qvla_ros.bundle import Bundle

SINE_PERIOD_STEPS = 40  # two seconds at LIBERO's 20 Hz: slow enough to watch


class FakeEngine:
    """Gives back prepared chunks, float32 [N, K, A], normalised; after the last one it starts again if it `repeats`."""

    def __init__(self, kind: str, chunks: NDArray[np.float32], repeats: bool) -> None:
        self.name = f"fake ({kind}): looks at nothing"
        self._chunks, self._repeats = chunks, repeats
        self._next = 0

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        if self._next == len(self._chunks) and not self._repeats:
            fix = "record a longer one, or start the node again to play it from its beginning"
            raise QvlaError("replay", f"chunk {self._next + 1}", f"at most {len(self._chunks)} chunks", fix)
        chunk = self._chunks[self._next % len(self._chunks)]
        self._next += 1
        return {"actions": chunk[None]}

    def close(self) -> None:
        """Nothing to free."""


def load(bundle: Bundle, kind: str, path: str | None = None) -> FakeEngine:
    """kind "zero": the middle of every range; "sine": each action sways slowly; "replay": the chunks in `path`.

    path: an .npy file, float [N, K, A], normalised to [-1, 1] as the graph's output is.
    """
    length, size = bundle.actions.chunk_length, len(bundle.actions.names)
    if kind == "replay":
        return FakeEngine(kind, _read_chunks(path, (length, size)), repeats=False)
    if path is not None:
        raise QvlaError("path", path, f"none: backend {kind} reads no file", "leave it out, or choose backend replay")
    if kind == "zero":
        return FakeEngine(kind, np.zeros((1, length, size), np.float32), repeats=True)
    cycle_steps = np.lcm(length, SINE_PERIOD_STEPS)
    steps = np.arange(cycle_steps, dtype=np.float32)[:, None] / SINE_PERIOD_STEPS + np.arange(size) / size
    return FakeEngine(kind, np.sin(2 * np.pi * steps).astype(np.float32).reshape(-1, length, size), repeats=True)


def _read_chunks(path: str | None, shape: tuple[int, int]) -> NDArray[np.float32]:
    expected = f"an .npy file of floats [N, {shape[0]}, {shape[1]}]"
    fix = 'save one with numpy.save and name it: engine options {"path": "chunks.npy"}'
    if path is None or not Path(path).is_file():
        raise QvlaError("replay path", path, expected, fix)
    try:
        chunks = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise QvlaError("replay path", f"{path} ({error})", expected, fix) from None
    if chunks.ndim != 3 or chunks.shape[1:] != shape or len(chunks) == 0 or chunks.dtype.kind != "f":
        raise QvlaError("replay path", f"{path}: {chunks.dtype} {list(chunks.shape)}", expected, fix)
    return chunks.astype(np.float32)
