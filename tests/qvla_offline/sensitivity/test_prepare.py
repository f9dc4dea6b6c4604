"""Samples are prepared together where their prompts are equally long, a few at a time, in order."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.sensitivity.prepare import MOST_AT_ONCE, prepared


class Doubling:
    """A model that doubles the tokens of each sample; keeps the shapes it was given."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def prepare(self, inputs: PolicyInputs) -> PolicyInputs:
        self.shapes.append(tuple(inputs.input_ids.shape))
        return replace(inputs, input_ids=2 * inputs.input_ids)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 3), max_size=40))
def test_each_sample_is_prepared_once_in_batches_of_one_length(lengths: list[int]) -> None:
    samples = [
        PolicyInputs(torch.full((1, 3, 1, 1), float(index)), torch.full((1, length), index), None)
        for index, length in enumerate(lengths)
    ]
    model = Doubling()
    found = prepared(model, samples)
    assert len(found) == len(samples)
    for index, (before, after) in enumerate(zip(samples, found, strict=True)):
        assert after.input_ids.tolist() == (2 * before.input_ids).tolist()
        assert after.pixel_values.tolist() == [[[[index]]] * 3]
    for length in set(lengths):
        rows = [batch for batch, tokens in model.shapes if tokens == length]
        assert sum(rows) == lengths.count(length)
        assert max(rows) <= MOST_AT_ONCE
        assert len(rows) == -(-lengths.count(length) // MOST_AT_ONCE)  # as few as possible
