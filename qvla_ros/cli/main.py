"""`qvla VERB`: finds the verb's module, gives it its arguments, and turns its errors into what a
person can act on.

A verb is a module with `HELP: str`, `add_arguments(parser)` and `run(args) -> int`. Only the verb
that was asked for is imported, so that `qvla --help` answers at once and a robot without torch
still has its own verbs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from qvla_ros.errors import QvlaError, QvlaWarning

_python_s_way = warnings.formatwarning

EXIT_BAD_INPUT = 2
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


class Verb(NamedTuple):
    """Where a verb lives and what it does in one line (here and not in its module, which may need
    torch to import).
    """

    module: str
    summary: str


WORKSTATION = {
    "quantize": Verb(
        "qvla_offline.cli.quantize",
        "one recipe YAML: checkpoint to sensitivities, gates and bundle",
    ),
    "sensitivity": Verb(
        "qvla_offline.cli.sensitivity", "how much each output channel at each bit-width hurts"
    ),
    "gates": Verb(
        "qvla_offline.cli.gates", "a bit budget becomes one bit-width per output channel"
    ),
    "error": Verb(
        "qvla_offline.cli.error", "action error against the float policy, on held-out observations"
    ),
    "fakequant": Verb(
        "qvla_offline.cli.fakequant", "a checkpoint with the quantization error in its weights"
    ),
    "export": Verb(
        "qvla_offline.cli.export", "checkpoint and gates become the bundle a robot runs"
    ),
    "build": Verb(
        "qvla_offline.cli.build",
        "the bundle's graph becomes a TensorRT plan (on a Jetson: there, no torch)",
    ),
    "audit": Verb(
        "qvla_offline.cli.audit", "bytes and precision of every layer of a graph or plan"
    ),
    "reference": Verb(
        "qvla_reference.cli.main", "the bundled policy from nothing: record, train, evaluate"
    ),
    "demonstrations": Verb(
        "qvla_reference.cli.demonstrations", "record a scripted expert in LIBERO"
    ),
    "train_reference": Verb("qvla_reference.cli.train", "train the small policy that is bundled"),
    "evaluate_reference": Verb(
        "qvla_reference.cli.evaluate", "success of a float checkpoint, without ROS"
    ),
    "export_demonstrations": Verb(
        "qvla_reference.cli.export_demonstrations", "recordings as a LeRobot dataset"
    ),
    "every_instruction": Verb(
        "qvla_reference.cli.every_instruction", "the same pictures labelled for each object"
    ),
    "observations": Verb(
        "qvla_reference.cli.observations", "what the policy sees at work, held out for `qvla error`"
    ),
    "dagger": Verb(
        "qvla_reference.cli.dagger", "the policy drives, the expert labels: data where it errs"
    ),
    "random_checkpoint": Verb(
        "qvla_offline.cli.random_checkpoint", "a small untrained checkpoint in the real layout"
    ),
}
ROBOT = {
    "inspect": Verb("qvla_ros.cli.inspect", "what a bundle holds and whether it is intact"),
    "parameters": Verb("qvla_ros.cli.parameters", "what the nodes can be told: docs/parameters.md"),
    "doctor": Verb(
        "qvla_ros.cli.doctor", "what stands between this machine, this graph and a running policy"
    ),
    "record": Verb("qvla_ros.cli.record", "what running policies see and do, in a bag"),
    "replay": Verb(
        "qvla_ros.cli.replay", "a policy again on a bag, compared with the chunks in it"
    ),
    "eval": Verb(
        "qvla_ros.cli.eval", "paired LIBERO episodes through ROS 2: success, latency, size"
    ),
    "latency_sweep": Verb(
        "qvla_ros.cli.latency_sweep", "success against latency, in LIBERO's simulated time"
    ),
    "demo": Verb("qvla_ros.cli.demo", "quantize the bundled policy, run it, write a report"),
}
VERBS = WORKSTATION | ROBOT


def main(argv: Sequence[str] | None = None) -> int:
    """Run `qvla argv`; return the exit status: the verb's own, 2 for bad input, 130 for Ctrl-C.

    An error that is not about input carries its own `exit_status`
    (qvla_ros.evaluation.runner.ProcessEnded).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"qvla {package_version()}")
        return 0
    warnings.formatwarning = plain_warning
    try:
        return run_verb(arguments[0].replace("-", "_"), arguments[1:])
    except QvlaError as error:
        print_error(error)
        return int(getattr(error, "exit_status", EXIT_BAD_INPUT))
    except BrokenPipeError:  # `qvla inspect DIR | head`: the reader has what it wants
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what is still buffered has nowhere to go
        return EXIT_BROKEN_PIPE
    except OSError as error:
        fix = "check that the path, its permissions and the free space are as meant"
        key = str(error.filename2 or error.filename or "file")
        print_error(
            QvlaError(key, error.strerror or error, "a path that can be read or written so", fix)
        )
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED


def run_verb(name: str, arguments: Sequence[str]) -> int:
    """Import the verb's module, parse `arguments` with it, run it, return its exit status."""
    if name not in VERBS:
        raise QvlaError("verb", name, f"one of {', '.join(VERBS)}", "run `qvla --help`")
    with _told_what_to_install(name):  # verbs import what is heavy only when it is needed
        module = importlib.import_module(VERBS[name].module)
        parser = argparse.ArgumentParser(
            prog=f"qvla {name}", description=module.HELP, formatter_class=_HelpFormatter
        )
        module.add_arguments(parser)
        return int(module.run(parser.parse_args(underscored(arguments))) or 0)


def underscored(arguments: Sequence[str]) -> list[str]:
    """`--calib-jsonl x` as `--calib_jsonl x`: option names only, values and what follows a bare
    `--` untouched.
    """
    result: list[str] = []
    for position, argument in enumerate(arguments):
        if argument == "--":
            return result + list(arguments[position:])
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
            argument = "--" + option[2:].replace("-", "_") + equals + value
        result.append(argument)
    return result


def overview() -> str:
    """The text of `qvla --help`: verbs by the machine they run on."""
    lines = ["usage: qvla VERB [options]        (qvla VERB --help tells a verb's options)", ""]
    for title, verbs in (
        ("workstation (torch)", WORKSTATION),
        ("robot (numpy, one engine, ROS 2)", ROBOT),
    ):
        lines.append(f"{title}:")
        lines += [f"  {name:<23}{verb.summary}" for name, verb in verbs.items()]
        lines.append("")
    return "\n".join([*lines, "options:", f"  {'--version':<23}print the version"])


def package_version() -> str:
    """Version of this package, e.g. "0.1.0"."""
    from qvla_ros import __version__

    return __version__


def plain_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> str:
    """How a warning is shown: ours as a sentence, others as Python does, with their place in the
    code.
    """
    if issubclass(category, QvlaWarning):
        return f"warning: {message}\n"
    return _python_s_way(message, category, *place, **more)


def print_error(error: QvlaError) -> None:
    """Show a QvlaError on standard error: what was wrong, what was found, what was expected, what
    mends it.
    """
    from rich.console import Console
    from rich.text import Text

    rows = (("got", error.value), ("expected", error.expected), ("fix", error.fix))
    text = Text.assemble(("error: ", "bold red"), (str(error.key), "bold red"))
    for label, value in rows:
        text.append(f"\n  {label + ':':<10}", style="red").append(str(value))
    Console(stderr=True, soft_wrap=True, highlight=False).print(text)


class _HelpFormatter(argparse.HelpFormatter):
    """Adds an option's default to its help, unless the help tells it or there is none worth
    telling.
    """

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = (
            action.default is None or action.default is False or action.default is argparse.SUPPRESS
        )
        if silent or "default" in (action.help or ""):
            return action.help
        return f"{action.help} (default: %(default)s)"


@contextmanager
def _told_what_to_install(verb: str) -> Iterator[None]:
    """A missing package is an error that a user can mend; a missing module of our own is not."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("qvla_ros.", "qvla_offline.")):
            raise
        extra = "offline" if verb in WORKSTATION else "libero"
        raise QvlaError(
            f"qvla {verb}",
            f"no Python module {error.name!r}",
            f"the packages that {verb} needs",
            "in a checkout: make setup, or pip install --constraint "
            f"environment/constraints.txt '.[{extra}]'",
        ) from error


if __name__ == "__main__":
    sys.exit(main())
