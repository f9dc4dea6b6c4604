"""The doctor's findings: one line a matter, with its fix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qvla_ros.errors import QvlaError

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One result of a check. about: what was checked.

    A problem keeps the policy from running, or from running right; a warning may do so.
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
    """A problem that the policy's own code found."""
    return problem(about, f"{error.key}: got {error.value}; expected {error.expected}", error.fix)
