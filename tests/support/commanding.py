"""Parameters of a policy node that commands a robot and that a busy machine cannot stop."""

from __future__ import annotations

from typing import Any

_GENEROUS_S = 60.0  # so that a busy machine trips no watchdog
_COMMANDING: dict[str, Any] = {
    "backend": "sine",
    "output": "pose",
    "linear_scale": 0.01,
    "angular_scale": 0.1,
    "linear_low": [-1.0],
    "linear_high": [1.0],
    "max_linear_lead": 1.0,
    "max_angular_lead_rad": 3.0,
    **dict.fromkeys(
        (
            "max_image_age_s",
            "inference_timeout_s",
            "max_command_age_s",
            "max_clock_jump_s",
            "max_stall_s",
            "max_idle_s",
        ),
        _GENEROUS_S,
    ),
}


def commanding(**changes: Any) -> dict[str, Any]:
    """Those parameters, with `changes`."""
    return _COMMANDING | changes
