"""Builds the pip distribution `qvla-ros`: Python packages, ROS messages and shared files.

pyproject.toml holds everything that needs no code. This file adds the step that setuptools lacks:
CMakeLists.txt generates the messages of msg/ and action/. What CMake installs becomes data files of
the distribution, which pip puts below the prefix of the environment, where ROS searches for them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from setuptools import Command, Distribution, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
BUILD_TOOLS = ("cmake", "ninja")


class BuildWithCMake(Command):
    """Runs CMake and adds what it installs to the data files of the distribution.

    An editable install takes the messages alone: launch/, config/ and reference_policy/ are read in
    the checkout.
    """

    description = "generate the ROS messages"
    editable_mode = False  # set by setuptools

    def initialize_options(self) -> None:
        self.build_temp: str | None = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_temp", "build_temp"))

    def run(self) -> None:
        folder = Path(str(self.build_temp)).resolve() / "cmake"
        # The cache of an earlier build names the Python of an environment that pip has deleted.
        shutil.rmtree(folder, ignore_errors=True)
        _run_cmake(folder / "build", folder / "prefix", shared_files=not self.editable_mode)
        self.distribution.data_files = _data_files(folder / "prefix")
        if self.editable_mode:  # other installs run this command themselves
            self.run_command("install_data")


class Build(build):
    """The build of setuptools, and CMake after it."""

    sub_commands = [*build.sub_commands, ("build_with_cmake", None)]  # noqa: RUF012 - as setuptools


class PlatformDistribution(Distribution):
    """A distribution with compiled parts: its wheel fits one platform and one Python."""

    def has_ext_modules(self) -> bool:
        return True


def _run_cmake(folder: Path, prefix: Path, shared_files: bool) -> None:
    """Configures and builds CMakeLists.txt in `folder` and installs it below `prefix`."""
    python_folder = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": os.pathsep.join([python_folder, os.environ["PATH"]])}
    options = {
        "BUILD_TESTING": "OFF",
        "CMAKE_INSTALL_PREFIX": prefix,
        "CMAKE_PROJECT_INCLUDE": ROOT / "cmake" / "pypi_ros_wheels.cmake",
        "Python3_EXECUTABLE": sys.executable,
        "QVLA_INSTALL_PYTHON": "OFF",
        "QVLA_INSTALL_SHARED_FILES": "ON" if shared_files else "OFF",
    }
    settings = [f"-D{name}={value}" for name, value in options.items()]
    configure = ["cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, *settings]
    for command in (configure, ["cmake", "--build", folder, "--target", "install"]):
        subprocess.run(command, check=True, env=environment)


def _data_files(prefix: Path) -> list[tuple[str, list[str]]]:
    """Every file below `prefix`, by its folder relative to it."""
    by_folder: dict[str, list[str]] = {}
    for path in sorted(prefix.rglob("*")):
        if path.is_file():
            by_folder.setdefault(str(path.parent.relative_to(prefix)), []).append(str(path))
    return list(by_folder.items())


setup(
    version=ElementTree.parse(ROOT / "package.xml").findtext("version"),
    cmdclass={"build": Build, "build_with_cmake": BuildWithCMake},
    distclass=PlatformDistribution,
    setup_requires=[tool for tool in BUILD_TOOLS if shutil.which(tool) is None],
)
