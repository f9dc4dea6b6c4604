"""Stops and resumes a model's own forward at its blocks, without a change to the model.

While the model runs, the forward of every block is replaced. The replacement hands back an output
known from before, until the block of interest is reached: its arguments are what was sought. What
happens between blocks (images cut into views, tokens put in a row) is done again each time. That
costs little, since all weights are in blocks.

A model must therefore call its blocks in the same order for every sample, and keep nothing between
calls (no cache of keys and values). Apart from constants, its blocks take and give tensors only,
which nothing changes in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

Model = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Call:
    """One execution of a block.

    feeds: the earlier calls whose outputs its arguments are made of, directly.
    """

    block: str
    feeds: frozenset[int]


@dataclass(frozen=True)
class Schedule:
    """The blocks in the order in which a model runs them.

    result: the calls that its result is made of, directly.
    """

    calls: tuple[Call, ...]
    result: frozenset[int]

    def last_use(self) -> dict[int, int]:
        """{call: last call that reads its output}; len(calls) stands for the result."""
        uses = [*(call.feeds for call in self.calls), self.result]
        return {feed: index for index, feeds in enumerate(uses) for feed in feeds}

    def downstream(self, blocks: set[str]) -> set[int]:
        """The calls of `blocks`, and all that read their outputs directly or indirectly."""
        found: set[int] = set()
        for index, call in enumerate(self.calls):
            if call.block in blocks or call.feeds & found:
                found.add(index)
        return found


@dataclass(frozen=True)
class Arguments:
    """The arguments of a block's call: tensors, in tuples and the like, and constants."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in a fixed order."""
        return [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    def call(self, block: nn.Module, tensors: Sequence[Tensor] | None = None) -> Tensor:
        """Runs the block, with `tensors` in place of its own if they are given."""
        if tensors is None:
            return block(*self.args, **self.kwargs)
        substitutes = iter(tensors)
        args, kwargs = tree_map(
            lambda leaf: next(substitutes) if isinstance(leaf, Tensor) else leaf,
            (self.args, self.kwargs),
        )
        return block(*args, **kwargs)


class _Reached(BaseException):
    """The block of interest has been called.

    Not an Exception, so that no model takes it for an error.
    """

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self.arguments = arguments


def trace(
    model: Model, blocks: Mapping[str, nn.Module], sample: Any, run: Callable[..., Tensor]
) -> Schedule:
    """Runs the model once to see in which order it calls its blocks.

    run(name, arguments) executes a block.
    """
    outputs: list[Tensor] = []
    calls: list[Call] = []

    def answer(name: str, arguments: Arguments) -> Tensor:
        feeds = _sources(arguments.tensors, outputs)
        output = run(name, arguments)
        if not isinstance(output, Tensor):
            raise TypeError(
                f"block {name} gives {type(output).__name__}; a block has to give one tensor"
            )
        output = output.detach()
        outputs.append(output.requires_grad_(output.is_floating_point()))
        calls.append(Call(name, feeds))
        return output

    with torch.enable_grad(), answered(blocks, answer):
        result = model(sample)
    return Schedule(tuple(calls), _sources([result], outputs))


def arguments_of(
    model: Model,
    blocks: Mapping[str, nn.Module],
    sample: Any,
    index: int,
    output: Callable[[int], Tensor],
) -> Arguments:
    """Returns the arguments of call `index`, given the outputs of earlier calls."""
    calls = iter(range(index + 1))

    def answer(name: str, arguments: Arguments) -> Tensor:
        number = next(calls)
        if number == index:
            raise _Reached(arguments)
        return output(number)

    try:
        with answered(blocks, answer):
            model(sample)
    except _Reached as reached:
        return reached.arguments
    raise RuntimeError(f"the model made fewer than {index + 1} calls of its blocks")


def result_of(
    model: Model, blocks: Mapping[str, nn.Module], sample: Any, output: Callable[[int], Tensor]
) -> Tensor:
    """Returns the model's result, given the outputs of all calls."""
    calls = iter(range(1 << 62))
    with answered(blocks, lambda name, arguments: output(next(calls))):
        return model(sample)


@contextmanager
def answered(
    blocks: Mapping[str, nn.Module], answer: Callable[[str, Arguments], Tensor]
) -> Iterator[None]:
    """Answers each call of a block by answer(name, arguments) while the context lasts.

    Within `answer`, blocks run as they are.
    """

    def forward(name: str, *args: Any, **kwargs: Any) -> Tensor:
        mine = blocks[name].__dict__.pop("forward")
        try:
            return answer(name, Arguments(args, kwargs))
        finally:
            blocks[name].__dict__["forward"] = mine

    try:
        for name, block in blocks.items():
            # past nn.Module's own bookkeeping of attributes
            block.__dict__["forward"] = partial(forward, name)
        yield
    finally:
        for block in blocks.values():
            block.__dict__.pop("forward", None)


def _sources(tensors: Sequence[Tensor], outputs: Sequence[Tensor]) -> frozenset[int]:
    """Finds which of `outputs` (leaves of the autograd graph) the tensors are computed from."""
    numbers = {id(output): number for number, output in enumerate(outputs)}
    found = {numbers[id(tensor)] for tensor in tensors if id(tensor) in numbers}
    waiting = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) in numbers:
            found.add(numbers[id(variable)])
        following = {parent for parent, _ in node.next_functions if parent is not None} - seen
        seen |= following
        waiting.extend(following)
    return frozenset(found)
