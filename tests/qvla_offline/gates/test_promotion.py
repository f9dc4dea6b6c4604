from __future__ import annotations

import numpy as np
import pytest

from qvla_offline.gates.promotion import print_promotion
from qvla_offline.quantization.scheme import QuantizationScheme

ASKED = {"a": np.array([4, 4, 2, 8]), "b": np.array([0, 4])}
COLUMNS = {"a": 128, "b": 64}


def printed(capsys, stored, columns=COLUMNS, compute_dtype="float32") -> str:
    print_promotion(ASKED, stored, columns, QuantizationScheme(64), compute_dtype)
    return capsys.readouterr().out


def test_nothing_is_printed_where_nothing_is_promoted(capsys):
    assert printed(capsys, ASKED) == ""


@pytest.mark.parametrize(("compute_dtype", "scale_bytes"), [("float32", 4), ("float16", 2)])
def test_promoted_rows_are_counted_by_their_bits_and_in_bytes(capsys, compute_dtype, scale_bytes):
    stored = {"a": np.array([8, 8, 4, 8]), "b": np.array([4, 4])}
    # a: int4 has 4 columns for 3 rows before, 2 for 1 after, each of two blocks; int8 gains 2 rows
    a = -2 * (64 + 2 * scale_bytes) + 2 * (128 + scale_bytes)
    b = 0  # the second row takes the column that padding took
    assert printed(capsys, stored, compute_dtype=compute_dtype) == (
        "rows promoted to fill groups: 1 from 0 to 4 bits, 1 from 2 to 4 bits, "
        f"2 from 4 to 8 bits; {a + b:+,} bytes\n"
    )


def test_layers_that_are_not_stored_do_not_count(capsys):
    stored = {"a": ASKED["a"], "b": np.array([8, 8])}
    assert printed(capsys, stored, {"a": 128}) == ""
