"""An installed package adds to the registries by an entry point; one that fails is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from qvla_ros.evaluation.processes import private_ros_environment

ROOT = Path(__file__).parents[2]
PLUGIN = """
from qvla_ros.engines import EngineEntry, register_engine


def register():
    register_engine(EngineEntry("mine", "qvla_ros.engines.fake", "a test's", {"kind": "zero"}))


def fail():
    raise RuntimeError("no licence")
"""


def install(folder: Path, **functions: str) -> None:
    """Installs a distribution in `folder` whose plugins are name=function."""
    (folder / "test_plugin_package.py").write_text(PLUGIN)
    information = folder / "test_plugin_package-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: test-plugin-package\n")
    lines = [f"{name} = test_plugin_package:{function}" for name, function in functions.items()]
    (information / "entry_points.txt").write_text("\n".join(["[qvla.plugins]", *lines]))


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    paths = [str(folder), str(ROOT), str(ROOT / "offline"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_the_command_line_knows_the_engine_of_a_plugin(tmp_path: Path) -> None:
    install(tmp_path, my_engine="register")
    done = start(tmp_path, "qvla_ros.cli.main", "parameters")
    assert (done.returncode, done.stderr) == (0, "")
    assert "`mine`" in done.stdout


def test_a_node_knows_the_engine_of_a_plugin(tmp_path: Path, bundle_dir: Path) -> None:
    install(tmp_path, my_engine="register")
    node = ["qvla_ros.nodes.policy", "--ros-args", "-p", f"bundle:={bundle_dir}"]
    # An engine that is known goes on to the next check, which refuses the other parameter.
    given = ["-p", "backend:=mine", "-p", "executor:=none"]
    with private_ros_environment(tmp_path) as ros:
        done = start(tmp_path, *node, *given, **ros)
    assert done.returncode == 2
    assert "parameter executor" in done.stderr
    assert "parameter backend" not in done.stderr


def test_a_plugin_that_fails_is_named_in_a_warning_and_the_others_are_loaded(
    tmp_path: Path,
) -> None:
    install(tmp_path, broken="fail", my_engine="register")
    done = start(tmp_path, "qvla_ros.cli.main", "parameters")
    assert done.returncode == 0
    assert "plugin broken (test_plugin_package:fail) failed" in done.stderr
    assert "no licence" in done.stderr
    assert "`mine`" in done.stdout
