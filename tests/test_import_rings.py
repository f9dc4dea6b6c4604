"""The robot side never imports torch, the workstation side never imports rclpy, and the core needs
no ROS at all.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORKSTATION_ONLY = {"torch", "transformers", "qvla_offline", "qvla_reference", "safetensors"}
ROS = {"rclpy", "qvla", "cv_bridge", "launch", "launch_ros", "tf2_ros"} | {
    *(
        "std_msgs",
        "sensor_msgs",
        "geometry_msgs",
        "lifecycle_msgs",
        "std_srvs",
        "builtin_interfaces",
        "rcl_interfaces",
    ),
    *(
        "action_msgs",
        "control_msgs",
        "diagnostic_msgs",
        "nav_msgs",
        "rosgraph_msgs",
        "trajectory_msgs",
    ),
}
SIMULATION = {"libero", "libero_pro", "robosuite", "mujoco"}
# Only these folders of qvla_ros may know ROS; everything else is the pure core.
ROS_SHELL = ("qvla_ros/nodes", "qvla_ros/testing")
SIMULATED_ROBOT = ("qvla_ros/simulation", "qvla_ros/nodes/libero_bridge")


def imported_packages(path: Path) -> set[str]:
    """Top-level names of every import statement of a file, wherever it stands (lazy imports too)."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def sources(folder: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("source", sources("qvla_ros"))
def test_robot_side_imports_nothing_of_the_workstation(source: str) -> None:
    assert not imported_packages(ROOT / source) & WORKSTATION_ONLY


@pytest.mark.parametrize("source", sources("offline"))
def test_workstation_side_imports_no_ros(source: str) -> None:
    assert not imported_packages(ROOT / source) & ROS


@pytest.mark.parametrize("source", [s for s in sources("qvla_ros") if not s.startswith(ROS_SHELL)])
def test_core_imports_no_ros(source: str) -> None:
    assert not imported_packages(ROOT / source) & ROS


@pytest.mark.parametrize(
    "source", [s for s in sources("qvla_ros") if not s.startswith(SIMULATED_ROBOT)]
)
def test_only_the_simulated_robot_imports_the_simulator(source: str) -> None:
    assert not imported_packages(ROOT / source) & SIMULATION


def test_importing_the_policy_core_loads_neither_torch_nor_ros() -> None:
    core = [
        "bundle",
        "preprocess",
        "actions",
        "safety",
        "control.controller",
        "policy",
        "observation",
        "statistics",
        "engines",
        "cli.main",
    ]
    code = f"""
import importlib, sys
for name in {core!r}:
    importlib.import_module("qvla_ros." + name)
print(sorted({(WORKSTATION_ONLY | ROS | SIMULATION)!r} & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
