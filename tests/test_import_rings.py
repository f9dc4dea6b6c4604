"""The packages keep apart.

No torch on the robot side, no rclpy on the workstation side, no ROS in the core, and no cycle
between folders.
"""

from __future__ import annotations

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "qvla_ros": ROOT / "qvla_ros",
    "qvla_offline": ROOT / "offline" / "qvla_offline",
    "qvla_reference": ROOT / "offline" / "qvla_reference",
}
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
# An optional converter of rare image encodings, imported when one comes; it needs no rclpy.
OPTIONAL_ROS = {"qvla_ros/messages/image.py": {"cv_bridge"}}
SIMULATED_ROBOT = ("qvla_ros/simulation", "qvla_ros/nodes/libero_bridge")


def imported_packages(path: Path) -> set[str]:
    """Top-level names of every import statement of a file, lazy imports included."""
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
    assert not imported_packages(ROOT / source) & (ROS - OPTIONAL_ROS.get(source, set()))


@pytest.mark.parametrize(
    "source", [s for s in sources("qvla_ros") if not s.startswith(SIMULATED_ROBOT)]
)
def test_only_the_simulated_robot_imports_the_simulator(source: str) -> None:
    assert not imported_packages(ROOT / source) & SIMULATION


# These may import the programs of qvla_ros/nodes: the programs themselves, what tests them, and the
# command line, which starts them.
ABOVE_THE_NODES = ("qvla_ros/nodes", "qvla_ros/testing", "qvla_ros/cli")


@pytest.mark.parametrize(
    "source", [s for s in sources("qvla_ros") if not s.startswith(ABOVE_THE_NODES)]
)
def test_core_imports_none_of_the_nodes(source: str) -> None:
    assert not {str(i) for i in imports_of(ROOT / source) if i.module.startswith("qvla_ros.nodes")}


@dataclass(frozen=True)
class Import:
    """One import of a module of ours. where: "file:line", and how it is imported if not at once."""

    module: str
    where: str

    def __str__(self) -> str:
        return f"{self.where} imports {self.module}"


def modules_of(package: str) -> dict[str, Path]:
    """Dotted name -> file, of every module of a package, the package itself included."""
    folder = PACKAGES[package]
    found = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def our_modules() -> dict[str, Path]:
    return {name: path for package in PACKAGES for name, path in modules_of(package).items()}


def imports_of(path: Path) -> list[Import]:
    """Every import of a module of ours in a file, wherever it stands."""
    file = path.relative_to(ROOT)

    def walk(node: ast.AST, how: str) -> Iterator[Import]:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            how = " (lazily)"
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            how = " (for types)"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, f"{file}:{node.lineno}{how}")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute here"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                module = whole if whole in our_modules() else node.module or ""
                yield Import(module, f"{file}:{node.lineno}{how}")
        for child in ast.iter_child_nodes(node):
            yield from walk(child, how)

    found = walk(ast.parse(path.read_text(encoding="utf-8")), "")
    return [one for one in found if one.module in our_modules()]


def folder_of(module: str) -> str:
    """A module's folder, at any depth; a module beside the folders of a package counts as one.

    A folder inside another is a folder of its own: where it is imported by the files beside it, it
    imports none of them.
    """
    path = our_modules()[module]
    package = module.partition(".")[0]
    parts = path.relative_to(PACKAGES[package]).with_suffix("").parts
    folder = parts[:1] if len(parts) == 1 else parts[:-1]
    return "/".join((package, *folder))


def graph_of(package: str, place: Callable[[str], str]) -> dict[str, dict[str, list[Import]]]:
    """Place -> place that it imports -> those imports; place(module): its folder, or itself."""
    graph: dict[str, dict[str, list[Import]]] = {}
    for module, path in modules_of(package).items():
        for one in imports_of(path):
            source = place(module)
            target = place(one.module)
            if source != target and target.startswith(package):
                graph.setdefault(source, {}).setdefault(target, []).append(one)
    return graph


def cycle_of(graph: dict[str, dict[str, list[Import]]]) -> str:
    """The imports that close a cycle of folders or files, a line each; empty if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        cycle = list(reversed(error.args[1]))  # it lists what is imported before what imports it
        steps = [
            f"{source} -> {target}: {', '.join(map(str, graph[source][target]))}"
            for source, target in pairwise(cycle)
        ]
        return "\n".join(steps)
    return ""


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_of_a_package_import_each_other_in_one_direction_only(package: str) -> None:
    cycle = cycle_of(graph_of(package, folder_of))
    assert not cycle, f"these imports close a cycle of folders:\n{cycle}"


@pytest.mark.parametrize("package", PACKAGES)
def test_files_of_a_package_import_each_other_in_one_direction_only(package: str) -> None:
    cycle = cycle_of(graph_of(package, str))
    assert not cycle, f"these imports close a cycle of files:\n{cycle}"


def test_a_folder_inside_another_is_a_folder_of_its_own() -> None:
    assert folder_of("qvla_ros.nodes.policy.node") == "qvla_ros/nodes/policy"
    assert folder_of("qvla_ros.nodes.policy.inputs.streams") == "qvla_ros/nodes/policy/inputs"


def test_a_cycle_of_folders_is_found_and_its_imports_are_named() -> None:
    there = Import("qvla_ros.b.two", "qvla_ros/a/one.py:3")
    back = Import("qvla_ros.a.one", "qvla_ros/b/two.py:7 (lazily)")
    apart = Import("qvla_ros.c", "qvla_ros/a/one.py:4")
    graph = {"qvla_ros/a": {"qvla_ros/b": [there], "qvla_ros/c": [apart]}}
    assert cycle_of(graph) == ""
    cycle = cycle_of({**graph, "qvla_ros/b": {"qvla_ros/a": [back]}})
    assert "qvla_ros/a/one.py:3 imports qvla_ros.b.two" in cycle
    assert "qvla_ros/b/two.py:7 (lazily) imports qvla_ros.a.one" in cycle
    assert "qvla_ros.c" not in cycle


def test_lazy_imports_and_those_for_types_count_and_are_called_so() -> None:
    found = {str(one) for one in imports_of(ROOT / "qvla_ros" / "cli" / "doctor.py")}
    assert any("(for types) imports qvla_ros.bundle" in text for text in found)
    assert any("(lazily) imports qvla_ros.doctor.bundle_checks" in text for text in found)


# Imports each module in a process of its own, forked from one that has only `preloaded`: as a fresh
# interpreter would, without paying for numpy and torch each time.
IMPORT_EACH = """
import importlib, json, os, sys, traceback
modules, preloaded, forbidden = json.loads(sys.stdin.read())
for name in preloaded:
    importlib.import_module(name)
assert not set(forbidden) & set(sys.modules), "nothing can be shown after this preloading"
for name in modules:
    if os.fork() == 0:
        try:
            importlib.import_module(name)
            found = sorted(set(forbidden) & set(sys.modules))
        except BaseException:
            found = [traceback.format_exc()]
        if found:
            os.write(1, (json.dumps([name, found]) + "\\n").encode())
        os._exit(0)
    os.wait()
"""


def loaded_by(
    modules: list[str], preloaded: list[str], forbidden: set[str]
) -> dict[str, list[str]]:
    """Module -> what of `forbidden` is loaded once it alone was imported, or its error.

    Those that load nothing are left out.
    """
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH],
        input=json.dumps([modules, preloaded, sorted(forbidden)]),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return dict(json.loads(line) for line in result.stdout.splitlines())


def core_modules(package: str) -> list[str]:
    ros = tuple(folder.replace("/", ".") for folder in ROS_SHELL)
    names = sorted(name for name in modules_of(package) if not name.endswith("__main__"))
    return [name for name in names if not name.startswith(ros)]


def test_importing_a_core_module_loads_no_ros_no_torch_no_engine_and_no_simulator() -> None:
    forbidden = WORKSTATION_ONLY | ROS | SIMULATION | {"onnxruntime", "tensorrt", "tensorrt_rtx"}
    modules = core_modules("qvla_ros")
    assert len(modules) > 70
    found = loaded_by(modules, ["numpy", "yaml"], forbidden)
    # ONNX Runtime's own module, imported when that backend is asked for.
    assert found.pop("qvla_ros.engines.onnxruntime") == ["onnxruntime"]
    assert not found


def test_importing_a_module_of_the_workstation_loads_no_ros() -> None:
    modules = [*core_modules("qvla_offline"), *core_modules("qvla_reference")]
    assert len(modules) > 70
    assert not loaded_by(modules, ["numpy", "torch", "onnx", "safetensors.torch"], ROS)
