from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from qvla_offline.checkpoints.empty import empty_model
from tests.support.random_model import random_model


class Recorder(TorchDispatchMode):
    """Notes the name of every tensor operation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_an_empty_model_has_the_names_and_shapes_of_a_full_one_and_draws_no_random_numbers() -> (
    None
):
    full = random_model("tiny", seed=0)
    with Recorder() as recorder:
        empty = empty_model(full.config)
    assert recorder.seen
    assert not [name for name in recorder.seen if "uniform" in name or "normal_" in name]
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    shapes = {name: tensor.shape for name, tensor in empty.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in full.state_dict().items()}
