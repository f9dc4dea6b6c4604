"""Holds the tensors that wait between blocks, in memory up to a budget and in files beyond it."""

from __future__ import annotations

import tempfile
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class _Spilled:
    """A tensor in a file."""

    file: Path
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


class Activations:
    """Holds tensors by key; what does not fit into `memory_bytes` goes to files.

    The files are in a folder of their own within `folder`.
    A context manager: the files are removed in the end. Tensors are not copied, so do not change
    them in place.
    """

    def __init__(self, memory_bytes: float = 2e9, folder: Path | None = None) -> None:
        self._free_bytes = memory_bytes
        self._folder = folder
        self._held: dict[Hashable, Tensor | _Spilled] = {}
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def __enter__(self) -> Activations:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forgets everything and removes the files."""
        self._held.clear()
        if self._scratch is not None:
            self._scratch.cleanup()

    def put(self, key: Hashable, tensor: Tensor) -> None:
        """Holds `tensor` under `key`, in place of what was there."""
        self.drop(key)
        tensor = tensor.detach()
        if tensor.nbytes <= self._free_bytes:
            self._free_bytes -= tensor.nbytes
            self._held[key] = tensor
            return
        if self._scratch is None:
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            self._scratch = tempfile.TemporaryDirectory(prefix=".activations.", dir=self._folder)
        file = Path(self._scratch.name) / str(self._files)
        self._files += 1
        tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tofile(file)
        self._held[key] = _Spilled(file, tensor.shape, tensor.dtype, tensor.device)

    def get(self, key: Hashable) -> Tensor:
        """Returns the tensor under `key`; KeyError if there is none."""
        held = self._held[key]
        if isinstance(held, Tensor):
            return held
        content = torch.from_numpy(np.fromfile(held.file, dtype=np.uint8))
        return content.view(held.dtype).reshape(held.shape).to(held.device)

    def drop(self, key: Hashable) -> None:
        """Forgets what is under `key`, if anything."""
        held = self._held.pop(key, None)
        if isinstance(held, Tensor):
            self._free_bytes += held.nbytes
        elif held is not None:
            held.file.unlink()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held
