"""The verbs of `qvla`: where each one is, and what it does in one line of `qvla --help`."""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """module: has `HELP`, `add_arguments(parser)` and `run(args) -> int`. extra: the optional
    dependencies of pyproject.toml that the verb needs, "" for none.

    The summary is here and not in the module, whose import may be slow.
    """

    module: str
    summary: str
    extra: str = "offline"


GROUPS: dict[str, dict[str, Verb]] = {
    "quantize (workstation, torch)": {
        "quantize": Verb("qvla_offline.cli.quantize", "every step below, from one recipe YAML"),
        "sensitivity": Verb(
            "qvla_offline.cli.sensitivity", "score each output channel at each bit-width"
        ),
        "statistics": Verb(
            "qvla_offline.cli.statistics",
            "Hessians of layer inputs, for --quantizer gptq",
        ),
        "gates": Verb("qvla_offline.cli.gates", "spend a bit budget: one bit-width a channel"),
        "train_scales": Verb(
            "qvla_offline.cli.train_scales", "train scales and biases against the float actions"
        ),
        "export": Verb(
            "qvla_offline.cli.export", "make the bundle that a robot runs of checkpoint and gates"
        ),
        "build": Verb("qvla_offline.cli.build", "build a TensorRT plan of a bundle (no torch)"),
        "activations": Verb(
            "qvla_offline.cli.activations", "score the inputs of each layer at 4 and 8 bits"
        ),
        "error": Verb(
            "qvla_offline.cli.error", "measure the action error on held-out observations"
        ),
        "fakequant": Verb(
            "qvla_offline.cli.fakequant", "write the checkpoint with quantized, restored weights"
        ),
    },
    "run on a robot (numpy, one engine, ROS 2)": {
        "parameters": Verb("qvla_ros.cli.parameters", "print the parameters of the nodes", ""),
        "record": Verb("qvla_ros.cli.record", "write what policies see and do to a bag", "bags"),
        "replay": Verb("qvla_ros.cli.replay", "run a policy again on such a bag, compare", "bags"),
        "reaction_time": Verb(
            "qvla_ros.cli.reaction_time", "estimate from a bag how late an arm moves", "bags"
        ),
    },
    "simulate and compare": {
        "demo": Verb(
            "qvla_ros.cli.demo", "quantize the bundled policy, run it, write a report", "libero"
        ),
        "eval": Verb(
            "qvla_ros.cli.eval", "compare bundles in LIBERO: success, latency, size", "libero"
        ),
        "compare": Verb(
            "qvla_offline.cli.compare",
            "compare methods and budgets: action error, paired success",
            "offline,libero",
        ),
        "latency_sweep": Verb(
            "qvla_ros.cli.latency_sweep", "measure success against latency in LIBERO", "libero"
        ),
    },
    "check": {
        "inspect": Verb("qvla_ros.cli.inspect", "show what a bundle holds; verify its files", ""),
        "audit": Verb("qvla_offline.cli.audit", "list bytes and precision of every layer"),
        "doctor": Verb(
            "qvla_ros.cli.doctor", "find what keeps a policy from running on this machine", ""
        ),
    },
    "workshop": {
        "reference": Verb(
            "qvla_reference.cli.main",
            "make the bundled policy from nothing, stage by stage",
            "offline,libero",
        ),
        "random_checkpoint": Verb(
            "qvla_offline.cli.random_checkpoint", "write a small untrained checkpoint, for tests"
        ),
    },
}
VERBS = {name: verb for verbs in GROUPS.values() for name, verb in verbs.items()}
# Verbs of earlier versions and the commands that took their places.
MOVED = {
    "demonstrations": "reference demonstrations",
    "every_instruction": "reference every_instruction",
    "train_reference": "reference train",
    "dagger": "reference dagger",
    "evaluate_reference": "reference evaluate",
    "export_demonstrations": "reference export_demonstrations",
}
_COLUMN = 19


def overview() -> str:
    """The text of `qvla --help`: verbs by what they are for, within 80 columns."""
    lines = [
        "usage: qvla VERB [options]",
        "",
        "`qvla VERB --help` lists the options of a verb.",
        "",
    ]
    for title, verbs in GROUPS.items():
        lines += [f"{title}:", *summaries(verbs), ""]
    return "\n".join([*lines, "options:", f"  {'--version':<{_COLUMN}}print the version"])


def summaries(verbs: dict[str, Verb]) -> list[str]:
    """A line for each verb: its name and its summary."""
    column = max(_COLUMN, *(len(name) + 2 for name in verbs))
    return [f"  {name:<{column}}{verb.summary}" for name, verb in verbs.items()]
