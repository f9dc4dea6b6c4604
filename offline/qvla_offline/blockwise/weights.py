"""Cuts a model into blocks, and fills one block at a time with its weights.

A block is the largest module that holds weights and no list of modules: each ViT block and decoder
layer, each embedding, projector and norm between them. No block is known by name, so every family
is cut the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qvla_offline.finite import require_finite, warn_of_zeros


def blocks_of(model: nn.Module, name: str = "") -> dict[str, nn.Module]:
    """Returns {name: block} in the order of named_modules.

    A model without any ModuleList is one block, named ''.
    """
    if not any(isinstance(module, nn.ModuleList) for module in model.modules()):
        return {name: model} if next(model.parameters(), None) is not None else {}
    found: dict[str, nn.Module] = {}
    for child_name, child in model.named_children():
        found |= blocks_of(child, _join(name, child_name))
    return found


def members_of(
    blocks: Mapping[str, nn.Module], modules: Mapping[str, nn.Module]
) -> dict[str, list[str]]:
    """Returns {block: names of the `modules` in it}, without the blocks that have none."""
    parts = {name: set(block.modules()) for name, block in blocks.items()}
    found = {
        name: [key for key, module in modules.items() if module in inside]
        for name, inside in parts.items()
    }
    return {name: keys for name, keys in found.items() if keys}


class BlockWeights:
    """Fills the blocks of a model that lies on the meta device.

    The weights come from `tensors`, in `dtype` on `device`.
    A block is emptied when it is done with, unless it and all that were kept before fit into
    `kept_bytes`: a small model is thus read once, a large one each time. Parameters outside of
    blocks (class tokens) are filled at once.
    """

    def __init__(
        self,
        model: nn.Module,
        tensors: Mapping[str, Tensor],
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        kept_bytes: float = 2e9,
    ) -> None:
        self.blocks = blocks_of(model)
        self._tensors = tensors
        self._device = device
        self._dtype = dtype
        self._free_bytes = kept_bytes
        self._kept: set[str] = set()
        self._slots: dict[str, list[_Slot]] = {name: [] for name in self.blocks}
        loose: list[_Slot] = []
        for module_name, module in model.named_modules():
            owner = next((block for block in self.blocks if _within(module_name, block)), None)
            for name, empty in module.named_parameters(recurse=False):
                slot = _Slot(module, name, _join(module_name, name), empty)
                (loose if owner is None else self._slots[owner]).append(slot)
        self._fill(loose)

    @contextmanager
    def loaded(self, name: str) -> Iterator[nn.Module]:
        """The block with its weights in it."""
        if name in self._kept:
            yield self.blocks[name]
            return
        size = self._fill(self._slots[name])
        if size <= self._free_bytes:
            self._kept.add(name)
            self._free_bytes -= size
        try:
            yield self.blocks[name]
        finally:
            if name not in self._kept:
                for slot in self._slots[name]:
                    slot.put(slot.empty)

    def _fill(self, slots: Sequence[_Slot]) -> int:
        """Reads the parameters; returns their bytes.

        QvlaError naming a tensor that is not finite.
        """
        size = 0
        for slot in slots:
            tensor = self._tensors[slot.name].to(device=self._device, dtype=self._dtype)
            require_finite(slot.name, tensor)
            warn_of_zeros(slot.name, tensor)
            slot.put(nn.Parameter(tensor, requires_grad=False))
            size += tensor.nbytes
        return size


@dataclass(frozen=True)
class _Slot:
    """Where a parameter goes.

    name: of the tensor in the checkpoint; empty: the parameter on the meta device.
    """

    module: nn.Module
    attribute: str
    name: str
    empty: nn.Parameter

    def put(self, parameter: nn.Parameter) -> None:
        setattr(self.module, self.attribute, parameter)


class ResidentWeights:
    """The same for a model whose weights are in place."""

    def __init__(self, model: nn.Module) -> None:
        self.blocks = blocks_of(model)

    @contextmanager
    def loaded(self, name: str) -> Iterator[nn.Module]:
        yield self.blocks[name]


def _join(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def _within(module: str, block: str) -> bool:
    return not block or module == block or module.startswith(f"{block}.")
