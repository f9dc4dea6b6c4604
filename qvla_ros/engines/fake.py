"""Stand-ins for a policy, to test a robot's wiring: zero, sine, replay. They ignore their inputs.

They also fail on demand, so that a robot's reaction to a failing policy can be tried out before it
matters.
"""

from __future__ import annotations

import time
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
    """Returns prepared chunks in turn, float32 [N, K, A], normalised.

    repeats: whether it starts again after the last one; otherwise that is a QvlaError. fault_file:
    once this file exists, the next run removes it and fails as its text says: "raise" an error,
    "nan" in all actions, or a number of seconds to sleep first.
    """

    needs_warm_up = False

    def __init__(
        self, kind: str, chunks: NDArray[np.float32], repeats: bool, fault_file: Path | None = None
    ) -> None:
        self.name = f"fake ({kind}): reads no input"
        self._chunks = chunks
        self._repeats = repeats
        self._fault_file = fault_file
        self._next = 0

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """The next chunk, whatever the inputs are."""
        fault = self._pop_fault()
        if fault == "raise":
            raise RuntimeError(f"as asked for by {self._fault_file}")
        if fault not in ("", "nan"):
            time.sleep(float(fault))
        if self._next == len(self._chunks) and not self._repeats:
            fix = "record a longer one, or start the node again to play it from its beginning"
            raise QvlaError(
                "replay", f"chunk {self._next + 1}", f"at most {len(self._chunks)} chunks", fix
            )
        chunk = self._chunks[self._next % len(self._chunks)]
        self._next += 1
        return {"actions": np.full_like(chunk, np.nan)[None] if fault == "nan" else chunk[None]}

    def _pop_fault(self) -> str:
        if self._fault_file is None or not self._fault_file.exists():
            return ""
        fault = self._fault_file.read_text().strip()
        self._fault_file.unlink()
        return fault

    def close(self) -> None:
        """Nothing to free."""


def load(
    bundle: Bundle, kind: str, path: str | None = None, fault_file: str | None = None
) -> FakeEngine:
    """Makes a fake engine for `bundle`.

    kind: "zero" is the middle of every range, "sine" sways each action slowly, "replay" plays the
    chunks in `path`. path: an .npy file, float [N, K, A], normalised to [-1, 1] as the graph's
    output is. fault_file: see FakeEngine.
    """
    length = bundle.actions.chunk_length
    size = len(bundle.actions.names)
    fault = None if fault_file is None else Path(fault_file)
    if kind == "replay":
        return FakeEngine(kind, _read_chunks(path, (length, size)), False, fault)
    if path is not None:
        raise QvlaError(
            "path",
            path,
            f"none: backend {kind} reads no file",
            "leave it out, or choose backend replay",
        )
    if kind == "zero":
        return FakeEngine(kind, np.zeros((1, length, size), np.float32), True, fault)
    cycle_steps = np.lcm(length, SINE_PERIOD_STEPS)
    steps = (
        np.arange(cycle_steps, dtype=np.float32)[:, None] / SINE_PERIOD_STEPS
        + np.arange(size) / size
    )
    return FakeEngine(
        kind, np.sin(2 * np.pi * steps).astype(np.float32).reshape(-1, length, size), True, fault
    )


def _read_chunks(path: str | None, shape: tuple[int, int]) -> NDArray[np.float32]:
    expected = f"an .npy file of floats [N, {shape[0]}, {shape[1]}]"
    fix = 'save one with numpy.save and name it: engine options {"path": "chunks.npy"}'
    if path is None or not Path(path).is_file():
        raise QvlaError("replay path", path, expected, fix)
    try:
        chunks = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise QvlaError("replay path", f"{path} ({error})", expected, fix) from None
    if (
        chunks.ndim != 3
        or chunks.shape[1:] != shape
        or len(chunks) == 0
        or chunks.dtype.kind != "f"
    ):
        raise QvlaError(
            "replay path", f"{path}: {chunks.dtype} {list(chunks.shape)}", expected, fix
        )
    return chunks.astype(np.float32)
