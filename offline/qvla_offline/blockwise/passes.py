"""Runs a model on samples, one block at a time, forward and backward.

Every sample goes through a block before the next block is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from qvla_offline.blockwise.activations import Activations
from qvla_offline.blockwise.schedule import (
    Arguments,
    Model,
    Schedule,
    answered,
    arguments_of,
    result_of,
    trace,
)
from qvla_offline.blockwise.weights import ResidentWeights
from qvla_ros.progress import track

# A Work prepares for one call of a block, given its number, name and module, and then serves sample
# after sample.
Execute = Callable[[int, Arguments], Tensor]  # (sample, arguments) -> output
Work = Callable[[int, str, nn.Module], AbstractContextManager[Execute]]
# (sample, arguments, cotangents [P, ...] of the output) -> per cotangent, those of the arguments
# that require gradients
Pull = Callable[[int, Arguments, Tensor], Sequence[Sequence[Tensor]]]
PullWork = Callable[[int, str, nn.Module], AbstractContextManager[Pull]]


class Weights(Protocol):
    """See BlockWeights."""

    blocks: dict[str, nn.Module]

    def loaded(self, name: str) -> AbstractContextManager[nn.Module]:
        """The block with its weights in it."""


@dataclass
class Blockwise:
    """A model that is run block by block.

    run: sample -> tensor, made of calls of the blocks in `weights` (see schedule). memory_bytes:
    for the tensors that wait between blocks; what exceeds it goes to files in a folder of its own
    within `folder`.
    """

    run: Model
    weights: Weights
    memory_bytes: float = 2e9
    folder: Path | None = None
    _schedule: Schedule | None = field(default=None, repr=False)

    @classmethod
    def resident(cls, model: nn.Module) -> Blockwise:
        """Weights of a model that is already in memory."""
        return cls(model, ResidentWeights(model))

    @contextmanager
    def filled_on_demand(self) -> Iterator[None]:
        """Lets the model be used in any way, one sample at a time.

        A block is filled when it is called.
        """
        with answered(self.weights.blocks, self._run_block):
            yield

    def schedule(self, sample: Any) -> Schedule:
        """The order of the blocks, found with one sample when first asked for."""
        if self._schedule is None:
            self._schedule = trace(self.run, self.weights.blocks, sample, self._run_block)
        return self._schedule

    @torch.no_grad()
    def _run_block(self, name: str, arguments: Arguments) -> Tensor:
        with self.weights.loaded(name) as block:
            return arguments.call(block)


@contextmanager
def plainly(index: int, name: str, block: nn.Module) -> Iterator[Execute]:
    """The Work that only runs the block."""
    yield lambda sample, arguments: arguments.call(block)


class BlockPass:
    """One forward pass of `samples`, and its backward pass.

    A context manager: outputs may lie in files until it ends. keep: hold all outputs, which the
    backward pass needs; else each goes once it has been read. over: a kept pass of the same
    samples, whose outputs are taken for the blocks on which `changed` has no influence.
    """

    def __init__(
        self,
        model: Blockwise,
        samples: Sequence[Any],
        keep: bool = False,
        over: BlockPass | None = None,
        changed: str = "",
    ) -> None:
        self.model = model
        self.samples = samples
        self.keep = keep
        self.over = over
        self.schedule = model.schedule(samples[0])
        self.own = (
            self.schedule.downstream({changed}) if over else set(range(len(self.schedule.calls)))
        )
        self._last_use = self.schedule.last_use()
        self._outputs = Activations(model.memory_bytes, model.folder)
        self._placeholders: dict[tuple[int, int], Tensor] = {}

    def __enter__(self) -> BlockPass:
        return self

    def __exit__(self, *details: Any) -> None:
        self._outputs.close()

    def forward(self, title: str | None = None, work: Work = plainly) -> BlockPass:
        """Runs every sample through every block in turn.

        title: of the progress that is shown; None shows none.
        """
        for _ in self.steps(title, work):
            pass
        return self

    @torch.no_grad()
    def steps(self, title: str | None, work: Work) -> Iterator[str]:
        """Does the same as `forward`, and yields the name of each block after its call."""
        for index in _tracked(sorted(self.own), title):
            name = self.schedule.calls[index].block
            with self.model.weights.loaded(name) as block, work(index, name, block) as execute:
                for sample in range(len(self.samples)):
                    self._hold(index, sample, execute(sample, self._arguments(sample, index)))
            del execute  # what it holds of this block goes before the next is prepared
            if not self.keep:
                self._drop(call for call in self.own if self._last_use.get(call, call) == index)
            yield name

    @torch.no_grad()
    def result(self, sample: int) -> Tensor:
        """Returns what the model gives, after `forward`."""
        return self._result(sample, {}, ())

    def arguments(self, sample: int, index: int) -> Arguments:
        """Returns what call `index` gets, while its work is done or, if all are kept, later."""
        return self._arguments(sample, index)

    def output(self, sample: int, index: int) -> Tensor:
        """Returns what call `index` gave, while its work is done or, if all are kept, later."""
        return self._held(index, sample)

    @torch.no_grad()
    def backward(
        self,
        title: str,
        of: Collection[str],
        cotangents: Callable[[int, Tensor], Sequence[Tensor]],
        work: PullWork,
    ) -> None:
        """Pulls cotangents of the results back to the blocks named in `of`, last block first.

        cotangents(sample, result) gives several per sample. work recomputes a block with gradients.
        Outputs are dropped on the way.
        """
        live = self.schedule.downstream(set(of))  # the calls whose outputs depend on those blocks
        with Activations(self.model.memory_bytes, self.model.folder) as waiting:
            for sample in range(len(self.samples)):
                leaves: dict[int, Tensor] = {}
                with torch.enable_grad():
                    result = self._result(sample, leaves, live)
                pulled = [[cotangent] for cotangent in cotangents(sample, result)]
                _hand_on(waiting, sample, [result], leaves, pulled)
            for index in _tracked(sorted(live, reverse=True), title):
                name = self.schedule.calls[index].block
                with self.model.weights.loaded(name) as block, work(index, name, block) as pull:
                    for sample in range(len(self.samples)):
                        if (index, sample) in waiting:
                            self._pull(pull, waiting, sample, index, live)
                del pull
                self._drop([index])

    def _pull(
        self, pull: Pull, waiting: Activations, sample: int, index: int, live: Collection[int]
    ) -> None:
        leaves: dict[int, Tensor] = {}
        with torch.enable_grad():
            arguments = self._arguments(sample, index, leaves, live)
        inputs = [tensor for tensor in arguments.tensors if tensor.requires_grad]
        _hand_on(
            waiting, sample, inputs, leaves, pull(sample, arguments, waiting.get((index, sample)))
        )
        waiting.drop((index, sample))

    def _arguments(
        self,
        sample: int,
        index: int,
        leaves: dict[int, Tensor] | None = None,
        live: Collection[int] = (),
    ) -> Arguments:
        output = self._reader(
            sample, self.schedule.calls[index].feeds, {} if leaves is None else leaves, live
        )
        return arguments_of(
            self.model.run, self.model.weights.blocks, self.samples[sample], index, output
        )

    def _result(self, sample: int, leaves: dict[int, Tensor], live: Collection[int]) -> Tensor:
        output = self._reader(sample, self.schedule.result, leaves, live)
        return result_of(self.model.run, self.model.weights.blocks, self.samples[sample], output)

    def _reader(
        self, sample: int, wanted: Collection[int], leaves: dict[int, Tensor], live: Collection[int]
    ) -> Callable[[int], Tensor]:
        """Outputs by call: those that are `wanted`, and zeros of their shape for others.

        `live` ones become `leaves`.
        """

        def output(index: int) -> Tensor:
            if index not in wanted:
                return self._placeholder(index, sample)
            held = self._held(index, sample)
            if index in live:
                held = leaves[index] = held.detach().requires_grad_()
            return held

        return output

    def _hold(self, index: int, sample: int, output: Tensor) -> None:
        self._outputs.put((index, sample), output)
        self._placeholders[index, sample] = output.new_zeros(()).expand(output.shape)

    def _held(self, index: int, sample: int) -> Tensor:
        if self.over and index not in self.own:
            return self.over._held(index, sample)
        return self._outputs.get((index, sample))

    def _placeholder(self, index: int, sample: int) -> Tensor:
        if self.over and index not in self.own:
            return self.over._placeholder(index, sample)
        return self._placeholders[index, sample]

    def _drop(self, calls: Collection[int] | Iterator[int]) -> None:
        for index in calls:
            for sample in range(len(self.samples)):
                self._outputs.drop((index, sample))


def _hand_on(
    waiting: Activations,
    sample: int,
    tensors: Sequence[Tensor],
    leaves: dict[int, Tensor],
    cotangents: Sequence[Sequence[Tensor]],
) -> None:
    """Takes cotangents of `tensors` through what lies between blocks to the outputs in `leaves`.

    They are added up for each output.
    """
    if not tensors or not leaves:
        return
    inner = list(leaves.values())
    # nothing lies between: the usual case
    if len(tensors) == len(inner) == 1 and tensors[0] is inner[0]:
        sums: list[Sequence[Tensor]] = list(cotangents)
    else:
        sums = [
            torch.autograd.grad(tensors, inner, given, retain_graph=True, materialize_grads=True)
            for given in cotangents
        ]
    for index, *parts in zip(leaves, *sums, strict=True):
        key = (index, sample)
        total = torch.stack(parts)
        waiting.put(key, waiting.get(key) + total if key in waiting else total)


def _tracked(calls: Sequence[int], title: str | None) -> Iterator[int]:
    return iter(calls) if title is None else track(calls, title, total=len(calls))
