"""A value is checked as ROS checks it, and against range and choices; NaN is in no range."""

from __future__ import annotations

import math
import re

import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.parameters.check import check_value
from qvla_ros.parameters.policy import PolicyParameters
from qvla_ros.parameters.table import ParameterSpec, specs

FAST = ParameterSpec("rate_hz", "double", 1.0, "how often", 0.5, 9.0)
LOW = ParameterSpec("low", "double_array", [], "one an axis")
KIND = ParameterSpec("kind", "string", "a", "which", choices=("a", "b"))


@pytest.mark.parametrize("spec", specs(PolicyParameters), ids=lambda spec: spec.name)
def test_every_default_fits(spec: ParameterSpec) -> None:
    check_value(spec, spec.default)


@pytest.mark.parametrize(
    ("spec", "value", "message"),
    [
        (FAST, 2, "got 2; expected double from 0.5 to 9 (how often). Fix: write 2.0"),
        (FAST, math.nan, "got nan; expected double from 0.5 to 9"),
        (FAST, True, "got True"),
        (FAST, [1.0], "got [1.0]"),
        (FAST, 9.5, "got 9.5"),
        (LOW, [1.0, math.nan], "got [1.0, nan]"),
        (LOW, [1, 2], "Fix: write [1.0, 2.0]"),
        (LOW, 1.0, "got 1.0; expected double array (one an axis)"),
        (KIND, "c", "got 'c'; expected one of a, b"),
        (ParameterSpec("n", "integer", 1, ""), 1.0, "got 1.0; expected integer"),
    ],
)
def test_what_does_not_fit_is_refused(spec: ParameterSpec, value: object, message: str) -> None:
    with pytest.raises(QvlaError, match=re.escape(message)):
        check_value(spec, value)


def test_infinity_is_a_limit_that_never_holds() -> None:
    check_value(LOW, [-math.inf, math.inf])
    check_value(LOW, [])
