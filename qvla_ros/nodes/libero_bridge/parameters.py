"""The parameters of the LIBERO bridge, and what of them fits together."""

from __future__ import annotations

from typing import Any

from rclpy.parameter import Parameter

from qvla_ros.errors import QvlaError
from qvla_ros.nodes.parameters import ParameterSpec, seconds
from qvla_ros.simulation.real_time import HANDOVERS, MEASURED, Conditions, RealTime

MAX_COUNT = 10**6

EPISODES = (
    ParameterSpec("policies", ["policy"], "namespaces of the policy nodes, run in turn"),
    ParameterSpec(
        "simulator", "libero", "fake: no physics, to try out the wiring", choices=("libero", "fake")
    ),
    ParameterSpec("task_suite_name", "libero_object", "LIBERO suite"),
    ParameterSpec("task_ids", [0], "tasks of the suite", kind=Parameter.Type.INTEGER_ARRAY),
    ParameterSpec("num_trials_per_task", 1, "episodes of each task and policy", 1, MAX_COUNT),
    ParameterSpec(
        "init_state_offset", 0, "official initial state of the first episode", 0, MAX_COUNT
    ),
    ParameterSpec("max_steps", 0, "step limit of an episode; 0: the suite's", 0, MAX_COUNT),
    ParameterSpec("seed", 0, "fixes what the initial states leave open", 0, 2**31 - 1),
    ParameterSpec("camera_size", 256, "height and width of the cameras in pixels", 16, 2048),
    ParameterSpec(
        "output_dir",
        "",
        "where episodes.jsonl goes, and what makes a run resumable; empty: nowhere",
    ),
    ParameterSpec(
        "video_dir", "", "where the first episode of each policy goes as MP4; empty: nowhere"
    ),
    seconds(
        "startup_timeout_s", 60.0, "how long to wait for the policies at the start", minimum=0.1
    ),
    seconds("response_timeout_s", 10.0, "how long to wait for a chunk", minimum=0.1),
    ParameterSpec(
        "timing",
        "lock_step",
        "whether the arm waits for the policy",
        choices=("lock_step", "real_time"),
    ),
)
REAL_TIME = (
    ParameterSpec(
        "latencies_s",
        [MEASURED],
        "from image to command, each in turn; -1: what each chunk says its computation took",
    ),
    ParameterSpec(
        "handovers", ["skip"], f"how a late chunk takes over, each in turn: {', '.join(HANDOVERS)}"
    ),
    ParameterSpec(
        "blend_steps", 0, "steps over which a chunk takes over from the one before", 0, 1000
    ),
    seconds(
        "observation_period_s",
        0.0,
        "shortest from image to image; 0: as soon as the policy is free",
    ),
    ParameterSpec(
        "faults", [""], "KIND[:CAMERA]@START[+DURATION][=DELAY], e.g. drop_camera:wrist@2+0.5"
    ),
)
PARAMETERS = EPISODES + REAL_TIME


def check_settings(settings: dict[str, Any]) -> None:
    """QvlaError on an empty or repeating list, and on what only means something in real time if
    time stands still.
    """
    for name in ("policies", "task_ids", "latencies_s", "handovers"):
        if len(settings[name]) == 0 or len(set(settings[name])) != len(settings[name]):
            raise QvlaError(
                f"parameter {name}",
                list(settings[name]),
                "at least one, no two alike",
                f"-p {name}:='[...]'",
            )
    for spec in REAL_TIME if settings["timing"] == "lock_step" else ():
        value = settings[spec.name]
        value = list(value) if isinstance(spec.default, list) else value
        if value != spec.default:
            raise QvlaError(
                f"parameter {spec.name}",
                value,
                "timing real_time with it",
                "add -p timing:=real_time",
            )


def conditions_of(settings: dict[str, Any]) -> tuple[Conditions | None, ...]:
    """What each initial state is run under; None: lock-step."""
    if settings["timing"] == "lock_step":
        return (None,)
    return RealTime(
        latencies_s=tuple(settings["latencies_s"]),
        handovers=tuple(settings["handovers"]),
        blend_steps=settings["blend_steps"],
        observation_period_s=settings["observation_period_s"],
    ).conditions()
