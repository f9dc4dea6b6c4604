"""What runs the policy graph. Each backend is imported only when it is asked for; none ever stands
in for another.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qvla_ros.errors import QvlaError

if TYPE_CHECKING:
    from qvla_ros.bundle import Bundle

# backend -> module that holds `load(bundle, **options) -> Engine`; the fake ones need the name to
# know which they are
_MODULES = {
    "onnxruntime": "onnxruntime",
    "tensorrt": "tensorrt",
    "zero": "fake",
    "sine": "fake",
    "replay": "fake",
}
BACKENDS = tuple(_MODULES)


class Engine(Protocol):
    """Runs the graph of one bundle. Not thread-safe: one caller at a time, on any thread.

    name: what ran, for reports (backend, provider or flavour, version). `run` takes and returns
    arrays by the names of the policy graph (docs/architecture.md); it blocks until the outputs are
    on the host.
    """

    name: str

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]: ...

    def close(self) -> None: ...


def engine_options(text: str, key: str = "--engine_options", sign: str = " ") -> dict[str, Any]:
    """The options of a backend in `text`, a JSON object; else QvlaError. key, sign: how they are
    given, to tell so.
    """
    fix = f"""{key}{sign}'{{"threads": 2}}'"""
    try:
        options = json.loads(text)
    except ValueError as error:
        raise QvlaError(key, f"{text!r} ({error})", "a JSON object", fix) from None
    if not isinstance(options, dict):
        raise QvlaError(key, repr(text), "a JSON object", fix)
    return options


def load_engine(bundle: Bundle, backend: str, **options: object) -> Engine:
    """The engine `backend` (one of BACKENDS) with the graph of `bundle` loaded; options are the
    backend's own.
    """
    if backend not in _MODULES:
        raise QvlaError(
            "backend", repr(backend), "one of " + ", ".join(BACKENDS), "choose one of them"
        )
    module = import_module(f"qvla_ros.engines.{_MODULES[backend]}")
    if _MODULES[backend] == "fake":
        options["kind"] = backend
    try:
        inspect.signature(module.load).bind(bundle, **options)
    except TypeError as error:
        raise QvlaError(
            f"options of backend {backend}", sorted(options), str(error), "leave out the option"
        ) from None
    return module.load(bundle, **options)
