"""Whatever the model says, what leaves stays finite and inside its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qvla_ros.errors import QvlaError
from qvla_ros.safety import clip_to_limits, require_finite

CHUNKS = hnp.arrays(np.float64, (5, 3), elements=st.floats(-100, 100))
LOW = np.array([-1.0, 0.0, -5.0])
HIGH = np.array([1.0, 0.5, 50.0])


@given(CHUNKS)
def test_clipped_actions_lie_within_limits_and_every_change_is_counted(actions: np.ndarray) -> None:
    clipped, counts = clip_to_limits(actions, LOW, HIGH)
    assert ((clipped >= LOW) & (clipped <= HIGH)).all()
    outside = (actions < LOW) | (actions > HIGH)
    assert counts.tolist() == outside.sum(axis=0).tolist()
    assert (clipped[~outside] == actions[~outside]).all()


@given(CHUNKS, st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 4), st.integers(0, 2))
def test_one_bad_number_refuses_the_whole_chunk(
    actions: np.ndarray, bad: float, row: int, column: int
) -> None:
    require_finite(actions, "actions")
    actions[row, column] = bad
    with pytest.raises(QvlaError, match=rf"actions.*\[{row}, {column}\]"):
        require_finite(actions, "actions")
