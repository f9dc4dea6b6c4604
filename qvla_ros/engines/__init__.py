"""Engines run the policy graph: their protocol, and the registry from which one is chosen by name.

An engine's module is imported only when it is chosen, and none ever stands in for another.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qvla_ros.errors import QvlaError

if TYPE_CHECKING:
    from qvla_ros.bundle import Bundle


class Engine(Protocol):
    """Runs the graph of one bundle. Not thread-safe: one caller at a time, on any thread.

    name: the backend, its provider or flavour and its version, for reports. needs_warm_up: whether
    the first runs are slower than the others; where they are not, none is spent on it. `run` takes
    and returns arrays by the names of the policy graph (docs/architecture.md); it blocks until the
    outputs are on the host.
    """

    name: str
    needs_warm_up: bool

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class EngineEntry:
    """One engine of the registry.

    name: the value of `backend` that chooses it. module: the dotted name of a module that holds
    `load(bundle, **options) -> Engine`; imported when it is chosen. description: what it is, for
    help and messages. options: those that `load` gets beside the user's. is_fake: its answers do
    not depend on its inputs. needs_plan: it runs a plan that `qvla build` makes, not the graph.
    """

    name: str
    module: str
    description: str
    options: Mapping[str, object] = field(default_factory=dict)
    is_fake: bool = False
    needs_plan: bool = False


_FAKES = {
    "zero": "the middle of every range",
    "sine": "each action sways slowly",
    "replay": "the chunks of a file",
}
ENGINES = {
    entry.name: entry
    for entry in (
        EngineEntry("onnxruntime", "qvla_ros.engines.onnxruntime", "ONNX Runtime on a CPU or GPU"),
        EngineEntry(
            "tensorrt", "qvla_ros.engines.tensorrt", "TensorRT or TensorRT-RTX", needs_plan=True
        ),
        *(
            EngineEntry(name, "qvla_ros.engines.fake", text, {"kind": name}, is_fake=True)
            for name, text in _FAKES.items()
        ),
    )
}
# The names alone; it follows what is registered later.
BACKENDS = ENGINES.keys()


def register_engine(entry: EngineEntry) -> None:
    """Adds an engine to the registry of this process; QvlaError if its name is taken."""
    if entry.name in ENGINES:
        raise QvlaError(
            "engine name",
            repr(entry.name),
            f"none of {', '.join(BACKENDS)}, which are taken",
            "register it under another name",
        )
    ENGINES[entry.name] = entry


def backend_help() -> str:
    """What the option or parameter `backend` is for, in one line that names the fakes."""
    fakes = [entry.name for entry in ENGINES.values() if entry.is_fake]
    return f"what runs the graph; {', '.join(fakes[:-1])} and {fakes[-1]} are fakes"


def find_engine(backend: str) -> EngineEntry:
    """The entry of that name; QvlaError if there is none."""
    if backend not in ENGINES:
        raise QvlaError(
            "backend", repr(backend), "one of " + ", ".join(BACKENDS), "choose one of them"
        )
    return ENGINES[backend]


def engine_options(text: str) -> dict[str, Any]:
    """Reads an engine's options from the text of --engine_options. QvlaError unless it is a JSON
    object.
    """
    key = "--engine_options"
    fix = f"""{key} '{{"threads": 2}}'"""
    try:
        options = json.loads(text)
    except ValueError as error:
        raise QvlaError(key, f"{text!r} ({error})", "a JSON object", fix) from None
    if not isinstance(options, dict):
        raise QvlaError(key, repr(text), "a JSON object", fix)
    return options


def load_engine(bundle: Bundle, backend: str, **options: object) -> Engine:
    """Loads the graph of `bundle` into the engine `backend`, one of BACKENDS.

    options: the engine's own. QvlaError on another name and on an option that it does not have.
    """
    entry = find_engine(backend)
    module = import_module(entry.module)
    given = {**options, **entry.options}
    try:
        inspect.signature(module.load).bind(bundle, **given)
    except TypeError as error:
        raise QvlaError(
            f"options of backend {backend}", sorted(options), str(error), "leave out the option"
        ) from None
    return module.load(bundle, **given)
