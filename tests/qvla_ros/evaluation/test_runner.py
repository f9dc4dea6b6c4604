"""Children always end, and their reason reaches their parent; scripts stand in for the nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.evaluation import runner
from qvla_ros.evaluation.processes import private_ros_environment, start, stop
from qvla_ros.simulation.real_time import RealTime

STUBBORN = (
    "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; "
    "print('up', flush=True); time.sleep(99)"
)
EPISODE = {
    "event": "episode",
    "policy": "float",
    "task_id": 0,
    "instruction": "pick",
    "init_state": 0,
    "success": True,
    "steps": 80,
    "duration_s": 6.0,
    "inference_ms": [10.0],
    "stamp_to_command_ms": [20.0],
    "jerk_m_s3": 0.5,
    "video": None,
}


def bundle(family: str = "openvla-oft", height: int = 256) -> Any:
    """What the runner reads of a bundle."""
    return SimpleNamespace(family=family, cameras=[SimpleNamespace(height=height, width=256)])


@pytest.fixture
def plan(tmp_path: Path) -> runner.EvaluationPlan:
    return runner.EvaluationPlan(
        bundles={"float": tmp_path},
        task_suite_name="libero_object",
        task_ids=(0,),
        num_trials_per_task=1,
        init_state_offset=0,
        backend="onnxruntime",
        seed=0,
        video=False,
    )


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch, plan: runner.EvaluationPlan, tmp_path: Path):
    """Run the plan with two scripts instead of the nodes.

    Returns episodes and the policy's process id.
    """

    def run(policy: str, bridge: str, last_word_s: float = 60.0) -> list:
        pid_file = tmp_path / "pid"
        policy = (
            f"import os; open({str(pid_file)!r}, 'w').write(str(os.getpid()))\n"
            + textwrap.dedent(policy)
        )
        monkeypatch.setattr(runner, "policy_arguments", lambda *_: ["-c", policy])
        monkeypatch.setattr(runner, "bridge_arguments", lambda *_: ["-c", textwrap.dedent(bridge)])
        monkeypatch.setattr(runner, "BRIDGE_LAST_WORD_S", last_word_s)
        try:
            return runner.run(plan, {"float": bundle()}, tmp_path, lambda event: None)
        finally:
            if pid_file.exists():
                assert not is_running(int(pid_file.read_text()))

    return run


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_episodes_come_back_and_the_policy_is_stopped(run_with) -> None:
    episodes = run_with(
        "import time; time.sleep(99)",
        f"print('a library says hello'); print({json.dumps(json.dumps(EPISODE))})",
    )
    assert [episode.success for episode in episodes] == [True]


def test_too_few_episodes_are_an_error_even_if_the_bridge_is_content(run_with) -> None:
    with pytest.raises(QvlaError, match="after 0 of 1 episodes"):
        run_with("import time; time.sleep(99)", "pass")


def test_the_bridge_tells_why_it_failed(run_with) -> None:
    error = json.dumps({"event": "error", "reason": "no image arrived"})
    with pytest.raises(QvlaError, match="no image arrived"):
        run_with("import time; time.sleep(99)", f"import sys; print({error!r}); sys.exit(3)")


def test_a_dead_policy_is_named_with_its_last_words_and_the_bridge_s_reason(run_with) -> None:
    error = json.dumps({"event": "error", "reason": "policy float vanished"})
    with pytest.raises(QvlaError) as caught:
        run_with(
            "import sys; sys.exit('the bundle is damaged')",
            f"import time; time.sleep(1); print({error!r})",
        )
    assert "policy_float" in caught.value.key
    assert "the bundle is damaged" in str(caught.value)
    assert "policy float vanished" in str(caught.value)


def test_a_dead_policy_ends_the_run_even_if_the_bridge_does_not_notice(run_with) -> None:
    with pytest.raises(QvlaError, match="exited with status 7") as caught:
        run_with("import sys; sys.exit(7)", "import time; time.sleep(99)", last_word_s=1.0)
    assert caught.value.exit_status == 3


def test_bad_input_to_a_node_is_bad_input_to_the_evaluation(run_with) -> None:
    with pytest.raises(QvlaError, match="exited with status 2") as caught:
        run_with("import sys; sys.exit(2)", "import time; time.sleep(99)", last_word_s=1.0)
    assert caught.value.exit_status == 2


def test_a_child_that_ignores_signals_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = ((signal.SIGINT, 0.2), (signal.SIGTERM, 0.2), (signal.SIGKILL, 5.0))
    monkeypatch.setattr("qvla_ros.evaluation.processes.SIGNALS_AND_PATIENCE_S", patience)
    child = start("stubborn", ["-c", STUBBORN], os.environ, tmp_path, pipe_stdout=True)
    assert child.process.stdout is not None
    assert child.process.stdout.readline() == "up\n"
    stop([child])
    assert child.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_children_end_with_their_parent_whatever_ends_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    parent_code = f"""
import os, pathlib, time
from qvla_ros.evaluation.processes import start, stopped_at_the_end
children = []
with stopped_at_the_end(children):
    code = ["-c", "import time; time.sleep(99)"]
    children.append(start("child", code, os.environ, pathlib.Path({str(tmp_path)!r})))
    print(children[0].process.pid, flush=True)
    time.sleep(99)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", parent_code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert parent.stdout is not None
    child_pid = int(parent.stdout.readline())
    parent.send_signal(number)
    parent.wait(20)
    deadline = time.monotonic() + 10
    while is_running(child_pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child_pid)


def test_two_evaluations_get_two_ros_domains(tmp_path: Path) -> None:
    with private_ros_environment(tmp_path) as first, private_ros_environment(tmp_path) as second:
        assert first["ROS_DOMAIN_ID"] != second["ROS_DOMAIN_ID"]
        assert first["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
        assert Path(first["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()


def test_a_folder_for_locks_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"qvla_ros_domains_{os.getuid()}"
    folder.write_text("another program's file")
    with (
        pytest.raises(QvlaError, match=rf"{folder}.*set TMPDIR"),
        private_ros_environment(tmp_path),
    ):
        pass


@pytest.mark.parametrize("name", ["has space", "1st", "_hidden", "a/b", ""])
def test_a_bundle_name_that_cannot_be_a_namespace_is_refused(
    plan: runner.EvaluationPlan, name: str
) -> None:
    with pytest.raises(QvlaError, match="bundle name"):
        runner.EvaluationPlan(**{**vars(plan), "bundles": {name: Path(".")}})


def test_univla_and_who_is_compared_with_it_get_its_own_steps() -> None:
    assert runner.max_steps([bundle()], "libero_10") == 0
    assert runner.max_steps([bundle(), bundle("univla")], "libero_10") == 550
    assert runner.max_steps([bundle("univla")], "fake") == 0


def test_bundles_for_other_cameras_are_refused_before_anything_starts(
    plan: runner.EvaluationPlan, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(QvlaError, match=r"camera sizes of the bundles: got \[224, 256\]"):
        runner.run(plan, {"float": bundle(height=224)}, out, lambda event: None)
    assert not out.exists()


def test_parameters_are_written_as_yaml() -> None:
    assert runner.ros_arguments({"tasks": [0, 1], "video": "", "fast": True, "names": ["a"]}) == [
        *(
            "--ros-args",
            "-p",
            "tasks:=[0, 1]",
            "-p",
            'video:=""',
            "-p",
            "fast:=true",
            "-p",
            'names:=["a"]',
        )
    ]


def test_in_real_time_policies_follow_simulated_time_and_every_condition_counts(
    plan: runner.EvaluationPlan, tmp_path: Path
) -> None:
    real_time = RealTime((0.0, 0.1), ("skip", "wait"), faults=("kill@3",))
    sweep = runner.EvaluationPlan(
        **{**vars(plan), "num_trials_per_task": 3, "real_time": real_time}
    )
    assert (plan.episode_count, sweep.episode_count) == (1, 12)
    assert "use_sim_time:=true" in runner.policy_arguments(sweep, "float", tmp_path)
    assert not any(
        "use_sim_time" in argument for argument in runner.policy_arguments(plan, "float", tmp_path)
    )
    arguments = runner.bridge_arguments(sweep, {"float": bundle()}, tmp_path)
    assert {'timing:="real_time"', "latencies_s:=[0.0, 0.1]", 'handovers:=["skip", "wait"]'} < set(
        arguments
    )
    assert not any(
        "timing" in argument
        for argument in runner.bridge_arguments(plan, {"float": bundle()}, tmp_path)
    )
