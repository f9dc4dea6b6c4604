"""`qvla demo`: the whole way in one command.

Quantize the bundled policy, let both drive the simulated arm, report.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from qvla_ros.bundle import load_bundle
from qvla_ros.cli.episode_options import add_episode_options
from qvla_ros.cli.eval import evaluate, run_module, run_qvla
from qvla_ros.cli.task_ids import task_ids_of
from qvla_ros.evaluation.runner import EvaluationPlan
from qvla_ros.resources import share_path

HELP = (
    "quantize the bundled policy, run it and the float one in LIBERO through ROS 2, write a report"
)
RESUME_WITH = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), help="directory for everything that is made"
    )
    parser.add_argument(
        "--recipe", type=Path, help="quantization recipe (default: that of the bundled policy)"
    )
    known = "comma-separated; the bundled policy knows all ten"
    add_episode_options(parser, 3, "episodes of each policy a task", "7,8,9", known)


def run(args: argparse.Namespace) -> int:
    """Quantizes into `--out`, evaluates both bundles and writes the report there.

    Steps that are up to date are skipped.
    """
    plan = EvaluationPlan(
        bundles={"float": args.out / "float_bundle", "quantized": args.out / "bundle"},
        task_suite_name=args.task_suite_name,
        task_ids=task_ids_of(args.task_ids, args.task_suite_name),
        num_trials_per_task=args.num_trials_per_task,
        init_state_offset=args.init_state_offset,
        backend="onnxruntime",
        seed=0,
        video=True,
    )
    recipe = args.recipe or share_path("config/quantize/reference.yaml")
    print("1/3 Quantizing", flush=True)
    run_qvla(["quantize", "--recipe", str(recipe), "--out", str(args.out)])
    analysis = args.out / "analysis.json"
    inputs = ["--proxy_pt", str(args.out / "sensitivity.safetensors")]
    inputs += ["--gates_path", str(args.out / "bundle" / "gates.json")]
    if (args.out / "error.json").is_file():
        inputs += ["--error_json", str(args.out / "error.json")]
    run_module("qvla_offline.analysis", [*inputs, "--out_json", str(analysis)])
    start_afresh(args.out)
    print(
        f"2/3 {plan.episode_count} episodes: one ROS 2 node a policy, one for the simulated arm",
        flush=True,
    )
    weights = load_bundle(plan.bundles["quantized"], verify_hashes=False).quantization
    lead = (
        "The bundled reference policy in float16 and quantized to "
        f"{weights.nominal_bits_per_weight:.2f} bits "
        "per weight, driving LIBERO's simulated arm through ROS 2 topics."
    )
    evaluate(plan, args.out, "Float and quantized, side by side", lead, "make demo", analysis)
    print("3/3 Done: open the report in a browser")
    return 0


def start_afresh(out_dir: Path) -> None:
    """Forgets the episodes of a demo that was finished.

    One that was interrupted goes on where it stopped.
    """
    results = out_dir / "results.json"
    if results.exists():
        (out_dir / "episodes.jsonl").unlink(missing_ok=True)
        results.unlink()
