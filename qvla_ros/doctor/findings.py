"""What the doctor says: one line a matter, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qvla_ros.errors import QvlaError

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """about: what was looked at. A problem keeps the policy from running, or from running right; a
    warning may.
    """

    about: str
    status: Status
    text: str
    fix: str = ""


def ok(about: str, text: str) -> Finding:
    return Finding(about, "ok", text)


def warning(about: str, text: str, fix: str) -> Finding:
    return Finding(about, "warning", text, fix)


def problem(about: str, text: str, fix: str) -> Finding:
    return Finding(about, "problem", text, fix)


def failed(about: str, error: QvlaError) -> Finding:
    """A problem that code of the policy itself found."""
    return problem(about, f"{error.key}: got {error.value}; expected {error.expected}", error.fix)
