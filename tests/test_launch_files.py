"""Launch files name only what exists: executables, parameters, files, arguments.

ROS 2's own `launch` has no wheels, so recorders stand in for it: each class keeps the arguments it
was made with. The names and signatures used here are those of ros2/launch and ros2/launch_ros;
docs/measured.md describes a run with those.
"""

from __future__ import annotations

import configparser
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from qvla_ros.engines import BACKENDS
from qvla_ros.errors import QvlaError
from qvla_ros.parameters.bridge import BridgeParameters
from qvla_ros.parameters.policy import PolicyParameters
from qvla_ros.parameters.table import specs

ROOT = Path(__file__).parent.parent
SHARED_FOLDERS = ("launch", "config", "reference_policy")
# rclpy itself declares use_sim_time in every node.
PARAMETERS = {
    "policy": {"use_sim_time", *(spec.name for spec in specs(PolicyParameters))},
    "libero_bridge": {"use_sim_time", *(spec.name for spec in specs(BridgeParameters))},
}
API = {
    "launch": ("LaunchContext", "LaunchDescription", "LaunchDescriptionEntity"),
    "launch.actions": (
        *("DeclareLaunchArgument", "GroupAction", "IncludeLaunchDescription", "OpaqueFunction"),
        *("SetEnvironmentVariable", "Shutdown"),
    ),
    "launch.launch_description_sources": ("PythonLaunchDescriptionSource",),
    "launch.substitutions": ("LaunchConfiguration", "PathJoinSubstitution", "PythonExpression"),
    "launch_ros": (),
    "launch_ros.actions": ("LifecycleNode", "Node", "SetParametersFromFile", "SetRemap"),
    "launch_ros.parameter_descriptions": ("ParameterValue",),
    "launch_ros.substitutions": ("FindPackageShare",),
}


class Recorder:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs

    def perform(self, context: dict[str, str]) -> str:
        """As a substitution: an argument's value, or the path of a shared file in this checkout."""
        name = type(self).__name__
        if name == "LaunchConfiguration":
            return context[self.args[0]]
        assert name == "PathJoinSubstitution"
        return str(ROOT.joinpath(*self.args[0][1:]))


@pytest.fixture(autouse=True)
def recorded_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    for module_name, classes in API.items():
        module = ModuleType(module_name)
        for name in classes:
            setattr(module, name, type(name, (Recorder,), {}))
        monkeypatch.setitem(sys.modules, module_name, module)


def describe(file: str) -> Recorder:
    spec = importlib.util.spec_from_file_location(
        Path(file).stem.replace(".", "_"), ROOT / "launch" / file
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def everything(value: Any) -> Iterator[Recorder]:
    """All recorders below `value`, itself included."""
    if isinstance(value, Recorder):
        yield value
        yield from everything([*value.args, *value.kwargs.values()])
    elif isinstance(value, dict):
        yield from everything([*value.keys(), *value.values()])
    elif isinstance(value, (list, tuple)) or hasattr(value, "mapping"):  # dict.items()
        for item in value:
            yield from everything(item)


def robot_policy(**given: str) -> Recorder:
    """What robot.launch.py starts once its arguments are known."""
    (function,) = of("OpaqueFunction", describe("robot.launch.py"))
    context = {"phase": "full", "params_file": "", "remaps_file": "", **given}
    (group,) = function.kwargs["function"](context)
    return group


def included_arguments(description: Recorder) -> dict[str, Any]:
    (include,) = of("IncludeLaunchDescription", description)
    return dict(include.kwargs["launch_arguments"])


def of(kind: str, description: Recorder) -> list[Recorder]:
    return [recorder for recorder in everything(description) if type(recorder).__name__ == kind]


def arguments(file: str) -> dict[str, Recorder]:
    return {recorder.args[0]: recorder for recorder in of("DeclareLaunchArgument", describe(file))}


ROBOT_FOLDERS = ROOT / "config" / "robots"
ROBOTS = sorted(file.parent.name for file in ROBOT_FOLDERS.glob("*/remaps.yaml"))
PHASES = ("dry_run", "observe", "slow", "full")
WITH_NODES = ["libero.launch.py", "policy.launch.py"]
FILES = sorted(path.name for path in (ROOT / "launch").iterdir() if path.suffix == ".py")


def test_there_are_launch_files() -> None:
    assert FILES == ["libero.launch.py", "policy.launch.py", "robot.launch.py"]


@pytest.mark.parametrize("file", WITH_NODES)
def test_every_executable_is_installed_under_its_name(file: str) -> None:
    scripts = configparser.ConfigParser()
    scripts.read(ROOT / "cmake" / "console_scripts.cfg")
    lines = scripts["options.entry_points"]["console_scripts"].strip().splitlines()
    installed = dict(line.replace(" ", "").split("=") for line in lines)
    description = describe(file)
    nodes = of("Node", description) + of("LifecycleNode", description)
    assert nodes
    for node in nodes:
        assert node.kwargs["package"] == "qvla"
        assert (
            installed[node.kwargs["executable"]]
            == f"qvla_ros.nodes.{node.kwargs['executable']}.main:main"
        )


@pytest.mark.parametrize("file", WITH_NODES)
def test_every_parameter_is_one_that_the_node_declares(file: str) -> None:
    description = describe(file)
    for node in of("Node", description) + of("LifecycleNode", description):
        for parameters in node.kwargs["parameters"]:
            if isinstance(parameters, dict):
                assert set(parameters) <= PARAMETERS[node.kwargs["executable"]]


@pytest.mark.parametrize("file", FILES)
def test_every_shared_file_exists_in_a_folder_that_is_installed(file: str) -> None:
    joined = of("PathJoinSubstitution", describe(file))
    assert joined
    for substitution in joined:
        (package, *parts) = substitution.args[0]
        assert package.args == ("qvla",)
        assert parts[0] in SHARED_FOLDERS
        assert ROOT.joinpath(*parts).is_file()


@pytest.mark.parametrize("file", FILES)
def test_every_configuration_used_is_a_declared_argument_with_a_description(file: str) -> None:
    declared = arguments(file)
    used = {recorder.args[0] for recorder in of("LaunchConfiguration", describe(file))}
    # What an OpaqueFunction reads is read in vain unless it is declared; see the tests of
    # robot.launch.py.
    assert used == set(declared) if file in WITH_NODES else used == set()
    assert all(recorder.kwargs["description"] for recorder in declared.values())


@pytest.mark.parametrize("file", FILES)
def test_defaults_are_among_the_choices(file: str) -> None:
    for recorder in arguments(file).values():
        if {"choices", "default_value"} <= set(recorder.kwargs):
            assert recorder.kwargs["default_value"] in recorder.kwargs["choices"]


@pytest.mark.parametrize("file", FILES)
def test_the_backends_offered_are_those_that_exist(file: str) -> None:
    assert tuple(arguments(file)["backend"].kwargs["choices"]) == tuple(BACKENDS)


def test_the_robots_and_phases_offered_are_those_that_have_files() -> None:
    offered = arguments("robot.launch.py")
    assert offered["robot"].kwargs["description"].startswith(", ".join(sorted(ROBOTS)))
    assert {path.name for path in ROBOT_FOLDERS.iterdir()} == {*ROBOTS, "libero"}
    assert {path.stem for path in (ROOT / "config").glob("*.yaml")} == {"policy"}
    assert tuple(offered["phase"].kwargs["choices"]) == PHASES
    assert {path.stem for path in (ROOT / "config" / "phases").glob("*.yaml")} == set(PHASES) - {
        "full"
    }


@pytest.mark.parametrize("file", WITH_NODES)
def test_a_launch_argument_never_overrides_what_a_parameter_file_says(file: str) -> None:
    robots = [ROBOT_FOLDERS / robot / "node.yaml" for robot in ROBOTS]
    of_policy = [ROOT / "config" / "policy.yaml", *robots]
    files = of_policy if file == "policy.launch.py" else [ROBOT_FOLDERS / "libero" / "node.yaml"]
    nodes = of("Node", describe(file)) + of("LifecycleNode", describe(file))
    given = {
        name
        for node in nodes
        for item in node.kwargs["parameters"]
        if isinstance(item, dict)
        for name in item
    }
    for path in files:
        assert not given & set(
            yaml.safe_load(path.read_text(encoding="utf-8"))["/**"]["ros__parameters"]
        ), path


def test_a_file_that_is_included_gets_only_arguments_that_it_declares() -> None:
    declared = set(arguments("policy.launch.py"))
    assert set(included_arguments(describe("libero.launch.py"))) <= declared
    assert set(included_arguments(robot_policy(robot="ur_servo"))) <= declared


@pytest.mark.parametrize(("timing", "sim_time"), [("lock_step", "false"), ("real_time", "true")])
def test_the_policy_follows_the_simulated_clock_when_the_bridge_keeps_real_time(
    timing: str, sim_time: str
) -> None:
    expression = included_arguments(describe("libero.launch.py"))["use_sim_time"]
    parts = [timing if isinstance(part, Recorder) else part for part in expression.args[0]]
    assert eval("".join(parts), {}) == sim_time  # what PythonExpression does
    assert timing in arguments("libero.launch.py")["timing"].kwargs["choices"]
    assert sim_time in arguments("policy.launch.py")["use_sim_time"].kwargs["choices"]


def test_every_argument_of_the_robots_launch_file_is_used() -> None:
    passed_on = set(included_arguments(robot_policy(robot="ur_servo"))) - {"params_file"}
    chosen = {"robot", "phase", "params_file", "remaps_file"}
    assert passed_on | chosen == set(arguments("robot.launch.py"))


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("own", [[], ["own.yaml"]])
def test_a_robot_gets_its_parameters_then_the_users_and_the_phases_last(
    robot: str, phase: str, own: list[str], tmp_path: Path
) -> None:
    """A phase promises that nothing is commanded, or only slowly: no file of a user may undo it."""
    folder = ROOT / "config"
    users = [tmp_path / name for name in own]
    of_phase = [] if phase == "full" else [folder / "phases" / f"{phase}.yaml"]
    expected = [folder / "robots" / robot / "node.yaml", *users, *of_phase]
    assert all(path.is_file() for path in expected if path not in users)
    group = robot_policy(robot=robot, phase=phase, params_file=str(users[0]) if users else "")
    earlier = [Path(recorder.args[0]) for recorder in of("SetParametersFromFile", group)]
    assert [*earlier, Path(included_arguments(group)["params_file"])] == expected


def test_the_node_can_be_started_by_another_command_such_as_chrt() -> None:
    (node,) = of("LifecycleNode", describe("policy.launch.py"))
    assert node.kwargs["prefix"].args == ("prefix",)
    assert arguments("policy.launch.py")["prefix"].kwargs["default_value"] == ""


def test_nothing_is_commanded_unless_a_phase_is_named() -> None:
    assert arguments("robot.launch.py")["phase"].kwargs["default_value"] == "dry_run"


@pytest.mark.parametrize("robot", ROBOTS)
def test_a_robots_remaps_are_from_names_that_the_node_subscribes_to(robot: str) -> None:
    description = yaml.safe_load(
        (ROBOT_FOLDERS / robot / "trained_on.yaml").read_text(encoding="utf-8")
    )
    images = {f"camera/{camera['name']}/image_raw" for camera in description["cameras"]}
    remaps = dict(recorder.args for recorder in of("SetRemap", robot_policy(robot=robot)))
    assert images <= set(remaps)
    assert set(remaps) <= {
        "joint_states",
        "ee_pose",
        *images,
        *(f"{name}/compressed" for name in images),
    }
    for name in images:
        assert remaps[f"{name}/compressed"] == f"{remaps[name]}/compressed"


def test_a_users_remaps_take_the_place_of_the_robots(tmp_path: Path) -> None:
    own = tmp_path / "remaps.yaml"
    own.write_text("camera/front/image_raw: /kinect/rgb\n")
    remaps = dict(
        recorder.args
        for recorder in of("SetRemap", robot_policy(robot="so101", remaps_file=str(own)))
    )
    assert remaps == {
        "camera/front/image_raw": "/kinect/rgb",
        "camera/front/image_raw/compressed": "/kinect/rgb/compressed",
    }


def test_a_robot_is_added_by_a_folder_of_its_own_wherever_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / "my_arm"
    folder.mkdir()
    (folder / "node.yaml").write_text("/**:\n  ros__parameters:\n    output: twist\n")
    (folder / "remaps.yaml").write_text("ee_pose: /my_arm/pose\n")
    group = robot_policy(robot=str(folder), phase="full")
    assert included_arguments(group)["params_file"] == str(folder / "node.yaml")
    remaps = dict(recorder.args for recorder in of("SetRemap", group))
    assert remaps == {"ee_pose": "/my_arm/pose"}


@pytest.mark.parametrize("robot", ["libero", "no_such_robot", "/no/such/folder"])
def test_what_is_no_robot_is_refused_and_the_robots_are_named(robot: str) -> None:
    with pytest.raises(QvlaError, match=f"robot: got {robot}; expected franka_cartesian, "):
        robot_policy(robot=robot)
