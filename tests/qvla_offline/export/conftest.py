"""Small graphs in ONNX Runtime at full precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from qvla_offline.checkpoints.openvla_oft import OpenVLAOFT
from tests.support.random_model import random_model

RunGraph = Callable[[Path, Mapping[str, np.ndarray]], dict[str, np.ndarray]]


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Matrices this small only lose by sharing them out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model() -> OpenVLAOFT:
    """The tiny random policy; shared, do not change it."""
    return random_model("tiny", seed=0)


@pytest.fixture
def run_graph() -> RunGraph:
    """run_graph(path, inputs) -> outputs, on the CPU, low-bit kernels at float32 accuracy."""

    def run(path: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return dict(
            zip(
                [o.name for o in session.get_outputs()],
                session.run(None, dict(inputs)),
                strict=True,
            )
        )

    return run
