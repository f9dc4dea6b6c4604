"""`qvla eval`: run bundles side by side in LIBERO, through ROS 2, and print how they compare."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from qvla_ros.cli.episode_options import (
    add_bundle_option,
    add_episode_options,
    add_node_options,
    parse_bundles,
    plan_of,
)
from qvla_ros.cli.real_time_options import (
    add_real_time_options,
    real_time_of,
    refuse_without_real_time,
)
from qvla_ros.errors import QvlaError
from qvla_ros.evaluation.runner import EvaluationPlan
from qvla_ros.simulation import named_object
from qvla_ros.simulation.real_time import RealTime

HELP = (
    "run bundles in LIBERO from the same initial states, one policy node a bundle, and "
    "print a paired table"
)
RESUME_WITH = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options; those of the released evaluation script keep their names."""
    add_bundle_option(parser)
    parser.add_argument(
        "--pretrained_checkpoint", type=Path, help="instead of bundles: export this checkpoint ..."
    )
    parser.add_argument(
        "--gates_path", type=Path, help="... as it is and with these gates, and compare the two"
    )
    parser.add_argument(
        "--statistics",
        type=Path,
        help="for gates whose quantizer needs them: directory of `qvla statistics`",
    )
    parser.add_argument(
        "--unnorm_key",
        help="whose statistics the checkpoint is exported with (default: the suite's)",
    )
    parser.add_argument(
        "--ensemble", action="store_true", help="UniVLA: averaged actions, not whole chunks"
    )
    add_episode_options(parser, 20, "episodes of each policy a task")
    add_node_options(parser)
    parser.add_argument(
        "--latency_s",
        help="let simulated time go on while the policy thinks: seconds, or measured "
        "(default: it stands still)",
    )
    parser.add_argument(
        "--handover", default="skip", help="with --latency_s: skip, restart or wait"
    )
    add_real_time_options(parser, observation_period_s=0.0)
    parser.add_argument("--no_video", action="store_true", help="record no video")
    parser.add_argument(
        "--out",
        "--local_log_dir",
        dest="out",
        type=Path,
        default=Path("out/eval"),
        help="results.json, videos, logs; interrupted, it goes on from here",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, write results.json and report.html into `--out`."""
    with bundles_of(args) as bundles:
        plan = plan_of(args, bundles, not args.no_video, real_time_or_none(args))
        lead = (
            f"{', '.join(bundles)} on {plan.task_suite_name}, "
            f"{plan.num_trials_per_task} episodes a task."
        )
        evaluate(plan, args.out, "Evaluation", lead, shlex.join(["qvla", *sys.argv[1:]]))
    return 0


def real_time_or_none(args: argparse.Namespace) -> RealTime | None:
    """None without --latency_s: the simulation waits for the policy."""
    if args.latency_s is not None:
        return real_time_of(args, args.latency_s, args.handover)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    refuse_without_real_time(args, parser.parse_args([]))
    return None


def evaluate(
    plan: EvaluationPlan,
    out_dir: Path,
    title: str,
    lead: str,
    command: str,
    analysis_path: Path | None = None,
) -> None:
    """Runs `plan` and prints its table; results.json, report.html, video/ and log/ go to `out_dir`.

    title, lead: of the report; command: what was typed, so that the report says how to get its
    numbers again.
    """
    from qvla_ros.bundle import load_bundle
    from qvla_ros.evaluation import runner
    from qvla_ros.evaluation.analysis import read_analysis
    from qvla_ros.evaluation.display import EpisodeDisplay
    from qvla_ros.evaluation.report import write_report
    from qvla_ros.evaluation.results import write_results
    from qvla_ros.evaluation.table import print_table

    loaded = {name: load_bundle(directory) for name, directory in plan.bundles.items()}
    analysis = None if analysis_path is None else read_analysis(analysis_path)
    with EpisodeDisplay(plan.episode_count) as display:
        episodes = runner.run(plan, loaded, out_dir, display)
    print_table(episodes, loaded)
    write_results(out_dir / "results.json", plan, loaded, episodes)
    write_report(out_dir / "report.html", title, lead, episodes, loaded, analysis, command)
    print(f"Every episode: {out_dir / 'results.json'}\nReport: {out_dir / 'report.html'}")


@contextmanager
def bundles_of(args: argparse.Namespace) -> Iterator[dict[str, Path]]:
    """The bundles of --bundle, or those exported from --pretrained_checkpoint.

    They are kept as long as the block.
    """
    if bool(args.bundle) == bool(args.pretrained_checkpoint):
        fix = (
            "name either bundles (--bundle NAME=DIR) or a checkpoint "
            "(--pretrained_checkpoint D --gates_path G)"
        )
        raise QvlaError("bundle", args.bundle or "none", "either bundles or a checkpoint", fix)
    if args.bundle:
        yield parse_bundles(args.bundle)
        return
    with tempfile.TemporaryDirectory(prefix="qvla_eval_") as folder:
        bundles = {"float": Path(folder) / "float"}
        export = ["export", "--pretrained_checkpoint", str(args.pretrained_checkpoint)]
        if args.unnorm_key:
            export += ["--unnorm_key", args.unnorm_key]
        elif args.task_suite_name.startswith("libero_"):
            scenes = (
                named_object.SCENE_SUITE
                if args.task_suite_name == named_object.SUITE
                else args.task_suite_name
            )
            export += ["--task_suite_name", scenes]
        if args.ensemble:
            export.append("--ensemble")
        run_qvla([*export, "--out_dir", str(bundles["float"])])
        if args.gates_path:
            bundles["quantized"] = Path(folder) / "quantized"
            quantized = [*export, "--gates_path", str(args.gates_path)]
            if args.statistics:
                quantized += ["--statistics", str(args.statistics)]
            run_qvla([*quantized, "--out_dir", str(bundles["quantized"])])
        yield bundles


def run_qvla(arguments: Sequence[str]) -> None:
    """Runs another verb in a process of its own.

    Torch leaves with it, and the robot side never imports it.
    """
    run_module("qvla_ros.cli.main", arguments)


def run_module(module: str, arguments: Sequence[str]) -> None:
    """Runs `python -m module arguments...`; QvlaError when it fails, after it has printed why."""
    status = subprocess.run([sys.executable, "-m", module, *arguments]).returncode
    if status != 0:
        raise QvlaError(
            " ".join([module, arguments[0]]),
            f"exit status {status}",
            "0",
            "fix what it printed above",
        )
