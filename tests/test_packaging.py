"""The tree builds as a ROS package (colcon) and as a pip distribution.

Both install and run away from the checkout.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import qvla_ros

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / "environment" / "constraints.txt"
READ_BY_RCLPY = {"action_msgs", "lifecycle_msgs"}  # rclpy.action and rclpy.lifecycle import them
# Used where they are installed, and there are no wheels of them. control_msgs is imported by its
# name alone.
OPTIONAL = {"control_msgs", "cv_bridge", "tf2_ros_py"}
NOT_ROS = {"PIL", "numpy", "simplejpeg", "yaml"}
CHECK_INSTALL = """
import pathlib, sys
import qvla_offline, qvla_reference, qvla_ros
from qvla.action import ExecuteInstruction
from qvla.msg import ActionChunk, PolicyStatus
from qvla_ros.resources import share_path
shared = [share_path("config/fastdds.xml"), share_path("launch/policy.launch.py")]
for path in (*(m.__file__ for m in (qvla_ros, qvla_offline, qvla_reference)), *shared):
    assert pathlib.Path(path).resolve().is_relative_to(sys.argv[1]), path
import rclpy
rclpy.init()
node = rclpy.create_node("packaging_test")
node.create_publisher(ActionChunk, "chunk", 1).publish(ActionChunk(bundle_id="it works"))
node.destroy_node()
rclpy.shutdown()
print("installed")
"""


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without what ties it to its own Python installation."""
    ties = {
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "AMENT_PREFIX_PATH",
        "CMAKE_PREFIX_PATH",
    }
    kept = {name: value for name, value in os.environ.items() if name not in ties}
    return {**kept, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": "97", **extra}


def run(command: list[str | Path], cwd: Path, **environment: str) -> str:
    result = subprocess.run(
        command, cwd=cwd, env=clean_environment(**environment), capture_output=True, text=True
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.mark.packaging
def test_colcon_build_gives_messages_nodes_and_the_command(tmp_path: Path) -> None:
    prefix = tmp_path / "install"
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    colcon = [
        "colcon",
        "--log-base",
        tmp_path / "log",
        "build",
        "--merge-install",
        "--base-paths",
        ROOT,
    ]
    bases = ["--build-base", tmp_path / "build", "--install-base", prefix]
    wheels = f"-DCMAKE_PROJECT_INCLUDE={ROOT / 'cmake' / 'pypi_ros_wheels.cmake'}"
    run(
        [*colcon, *bases, "--cmake-args", "-G", "Ninja", "-DBUILD_TESTING=OFF", wheels],
        tmp_path,
        PATH=tools,
    )

    def sourced(script: str) -> str:
        return run(
            ["bash", "-c", f". {prefix}/setup.bash && {script}"],
            tmp_path,
            PATH=tools,
            ROS_LOG_DIR=str(tmp_path),
        )

    (tmp_path / "check.py").write_text(CHECK_INSTALL)
    assert "installed" in sourced(f"python check.py {prefix}")
    assert sourced("qvla --version").split() == ["qvla", qvla_ros.__version__]
    # What `ros2 run qvla policy` starts: it comes up far enough to ask for its bundle.
    assert "parameter bundle" in sourced(f"{{ {prefix}/lib/qvla/policy 2>&1 || true; }}")
    assert (prefix / "lib" / "qvla" / "libero_bridge").is_file()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the sources without built files, and an environment with nothing installed."""
    folder = tmp_path_factory.mktemp("pip")
    source = folder / "source"
    environment = folder / "environment"
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line]
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", *ignored))
    run([sys.executable, "-m", "venv", environment], folder)
    return source, environment


@pytest.mark.packaging
def test_pip_install_in_a_fresh_environment_works_without_environment_variables(
    fresh: tuple[Path, Path], tmp_path: Path
) -> None:
    source, environment = fresh
    run(
        [environment / "bin" / "pip", "install", "-qq", "--constraint", CONSTRAINTS, source],
        tmp_path,
    )
    (tmp_path / "check.py").write_text(CHECK_INSTALL)
    python = environment / "bin" / "python"
    assert "installed" in run(
        [python, "check.py", environment], tmp_path, ROS_LOG_DIR=str(tmp_path)
    )
    assert run([environment / "bin" / "qvla", "--version"], tmp_path).split() == [
        "qvla",
        qvla_ros.__version__,
    ]
    installed = run([environment / "bin" / "pip", "list", "--format", "freeze"], tmp_path)
    assert not re.search(r"^(torch|transformers|mujoco)==", installed, re.MULTILINE)


@pytest.mark.packaging
def test_an_editable_install_imports_the_checkout_and_finds_messages_and_command(
    fresh: tuple[Path, Path], tmp_path: Path
) -> None:
    source, environment = fresh  # what the test above installed gives way to the editable install
    command = [environment / "bin" / "pip", "install", "-qq", "--constraint", CONSTRAINTS]
    run([*command, "--editable", source], tmp_path)
    (tmp_path / "check.py").write_text(CHECK_INSTALL)
    python = environment / "bin" / "python"
    assert "installed" in run([python, "check.py", source], tmp_path, ROS_LOG_DIR=str(tmp_path))
    assert not (environment / "share" / "qvla" / "config").exists()
    version = source / "qvla_ros" / "__init__.py"
    version.write_text(version.read_text().replace(qvla_ros.__version__, "9.9.9"))
    assert run([environment / "bin" / "qvla", "--version"], tmp_path).split() == ["qvla", "9.9.9"]


def test_package_xml_declares_every_ros_module_that_is_imported_and_no_other_messages() -> None:
    root = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {element.text for kind in ("depend", "exec_depend") for element in root.iter(kind)}
    modules = ros_modules(ROOT / "qvla_ros" / "nodes") | ros_modules(ROOT / "launch")
    assert modules <= declared
    assert messages(declared) <= modules | READ_BY_RCLPY | OPTIONAL
    assert declared >= OPTIONAL


def test_the_wheels_cover_every_ros_module_of_the_nodes_and_no_other_messages() -> None:
    lines = run([sys.executable, ROOT / "environment" / "requirements.py"], ROOT).splitlines()
    wheels = {
        re.sub("^ros-(kilted-)?", "", line).replace("-", "_")
        for line in lines
        if line.startswith("ros-")
    }
    modules = ros_modules(ROOT / "qvla_ros" / "nodes") - OPTIONAL
    assert modules <= wheels
    assert messages(wheels) <= modules | READ_BY_RCLPY


def test_there_is_one_version_number() -> None:
    assert (
        ElementTree.parse(ROOT / "package.xml").getroot().findtext("version")
        == qvla_ros.__version__
    )


def test_every_requirement_is_pinned_in_the_one_place_for_pins() -> None:
    lines = CONSTRAINTS.read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    command = [
        sys.executable,
        ROOT / "environment" / "requirements.py",
        "build",
        "offline",
        "libero",
        "test",
        "colcon",
    ]
    for requirement in run(command, ROOT).splitlines():
        name = re.split(r"[\[<>=!~ ]", requirement)[0].lower().replace("_", "-")
        assert name in pinned | {"wheel"}, name
        if "==" in requirement:
            assert name == "torch", f"{requirement}: pin it in {CONSTRAINTS.name}"
            assert requirement in lines, f"{requirement}: {CONSTRAINTS.name} pins another version"


def test_every_python_that_the_package_allows_gets_one_version_of_a_package() -> None:
    """A package that no longer comes for Python 3.10 has another version there, or any."""
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if "==" in line]
    for python in ("3.10", "3.11", "3.12"):
        names = []
        for line in lines:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(
                {"python_version": python}
            ):
                names.append(requirement.name)
        assert len(names) == len(set(names)), python
        assert {"onnxruntime", "pillow", "numpy", "cv-bridge"} <= set(names)
    for name in (ROOT / "environment" / "without_dependencies.txt").read_text().splitlines():
        assert name.startswith("#") or any(line.startswith(f"{name}==") for line in lines)


def ros_modules(folder: Path) -> set[str]:
    """Top-level ROS packages that the Python files of `folder` import."""
    modules = {
        name.partition(".")[0] for source in folder.rglob("*.py") for name in imports(source)
    }
    # the package that has the module
    modules = {"tf2_ros_py" if name == "tf2_ros" else name for name in modules}
    return modules - {"__future__", "qvla", "qvla_ros", *NOT_ROS, *sys.stdlib_module_names}


def messages(packages: set[str]) -> set[str]:
    return {name for name in packages if name.endswith(("_msgs", "_srvs", "_interfaces"))}


def imports(source: Path) -> set[str]:
    tree = ast.walk(ast.parse(source.read_text(encoding="utf-8")))
    statements = [node for node in tree if isinstance(node, (ast.Import, ast.ImportFrom))]
    plain = {
        alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names
    }
    return plain | {
        node.module for node in statements if isinstance(node, ast.ImportFrom) and node.module
    }
