"""The parameters of the LIBERO bridge, and what of them fits together."""

from __future__ import annotations

from dataclasses import dataclass

from qvla_ros.errors import QvlaError
from qvla_ros.parameters.table import parameter, seconds, specs
from qvla_ros.simulation.real_time import HANDOVERS, MEASURED, Conditions, RealTime

MAX_COUNT = 10**6


@dataclass(frozen=True)
class EpisodeParameters:
    """Which episodes are run with which policies."""

    policies: tuple[str, ...] = parameter(
        ("policy",), "namespaces of the policy nodes, run in turn"
    )
    simulator: str = parameter(
        "libero", "fake: no physics, to try out the wiring", choices=("libero", "fake")
    )
    task_suite_name: str = parameter("libero_object", "LIBERO suite")
    task_ids: tuple[int, ...] = parameter((0,), "tasks of the suite")
    num_trials_per_task: int = parameter(1, "episodes of each task and policy", 1, MAX_COUNT)
    init_state_offset: int = parameter(
        0, "official initial state of the first episode", 0, MAX_COUNT
    )
    max_steps: int = parameter(0, "step limit of an episode; 0: the suite's", 0, MAX_COUNT)
    seed: int = parameter(0, "fixes what the initial states leave open", 0, 2**31 - 1)
    camera_size: int = parameter(256, "height and width of the cameras in pixels", 16, 2048)
    output_dir: str = parameter(
        "", "where episodes.jsonl goes, and what makes a run resumable; empty: nowhere"
    )
    video_dir: str = parameter(
        "", "where the first episode of each policy goes as MP4; empty: nowhere"
    )
    startup_timeout_s: float = seconds(
        60.0, "how long to wait for the policies at the start", minimum=0.1
    )
    response_timeout_s: float = seconds(10.0, "how long to wait for a chunk", minimum=0.1)
    timing: str = parameter(
        "lock_step", "whether the arm waits for the policy", choices=("lock_step", "real_time")
    )


@dataclass(frozen=True)
class RealTimeParameters:
    """Parameters that have an effect only if time goes on while the policy thinks."""

    latencies_s: tuple[float, ...] = parameter(
        (MEASURED,),
        "from image to command, each in turn; -1: what each chunk says its computation took",
    )
    handovers: tuple[str, ...] = parameter(
        ("skip",), f"how a late chunk takes over, each in turn: {', '.join(HANDOVERS)}"
    )
    blend_steps: int = parameter(
        0, "steps over which a chunk takes over from the one before", 0, 1000
    )
    observation_period_s: float = seconds(
        0.0, "shortest from image to image; 0: as soon as the policy is free"
    )
    faults: tuple[str, ...] = parameter(
        ("",), "KIND[:CAMERA]@START[+DURATION][=DELAY], e.g. drop_camera:wrist@2+0.5"
    )


@dataclass(frozen=True)
class BridgeParameters:
    """All parameters of the bridge.

    QvlaError on an empty or repeating list, and on values that only have an effect in real time if
    time stands still.
    """

    episodes: EpisodeParameters = EpisodeParameters()
    real_time: RealTimeParameters = RealTimeParameters()

    def __post_init__(self) -> None:
        lists: dict[str, tuple[object, ...]] = {
            "policies": self.episodes.policies,
            "task_ids": self.episodes.task_ids,
            "latencies_s": self.real_time.latencies_s,
            "handovers": self.real_time.handovers,
        }
        for name, values in lists.items():
            if len(values) == 0 or len(set(values)) != len(values):
                fix = f"-p {name}:='[...]'"
                expected = "at least one, no two alike"
                raise QvlaError(f"parameter {name}", list(values), expected, fix)
        if self.episodes.timing == "lock_step":
            self._require_no_real_time()

    def _require_no_real_time(self) -> None:
        for spec in specs(RealTimeParameters):
            value = getattr(self.real_time, spec.name)
            value = list(value) if spec.is_array else value
            if value != spec.default:
                fix = "add -p timing:=real_time"
                raise QvlaError(f"parameter {spec.name}", value, "timing real_time with it", fix)

    def conditions(self) -> tuple[Conditions | None, ...]:
        """What each initial state is run under; None: lock-step."""
        if self.episodes.timing == "lock_step":
            return (None,)
        given = self.real_time
        return RealTime(
            latencies_s=given.latencies_s,
            handovers=given.handovers,
            blend_steps=given.blend_steps,
            observation_period_s=given.observation_period_s,
        ).conditions()
