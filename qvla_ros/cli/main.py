"""`qvla VERB`: imports the verb's module, parses its arguments, runs it and reports its errors.

A verb is a module with `HELP: str`, `add_arguments(parser)` and `run(args) -> int`, and, if it goes
on where Ctrl-C stopped it, `RESUME_WITH: str` (see _how_to_go_on). Only the module
of the verb that is asked for is imported, so that `qvla --help` answers at once and a robot without
torch still has its own verbs. A module may have `STAGES: dict[str, Verb]` too: `qvla VERB STAGE`
runs a stage, which is such a module itself, and `qvla VERB` or `qvla VERB all` runs the verb.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from qvla_ros.cli.verbs import MOVED, VERBS, Verb, overview, summaries
from qvla_ros.errors import QvlaError, QvlaWarning, os_error_fix
from qvla_ros.exit_codes import BAD_INPUT, BROKEN_PIPE, INTERRUPTED
from qvla_ros.plugins import load_plugins

_python_s_way = warnings.formatwarning


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `qvla argv` and returns its exit status: the verb's own, or one of qvla_ros.exit_codes.

    An error that is not about input carries its own `exit_status`
    (qvla_ros.evaluation.runner.ProcessEnded).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    warnings.formatwarning = plain_warning
    try:
        try:
            return _answer(arguments)
        finally:  # what is still buffered: a reader that has gone is noticed here
            sys.stdout.flush()
    except QvlaError as error:
        print_error(error)
        return int(getattr(error, "exit_status", BAD_INPUT))
    except BrokenPipeError:  # `qvla inspect DIR | head`: the reader has what it wants
        # What is still buffered has nowhere to go.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return BROKEN_PIPE
    except OSError as error:
        key = str(error.filename2 or error.filename or "file")
        expected = "a path that can be read or written so"
        print_error(QvlaError(key, error.strerror or error, expected, os_error_fix(error)))
        return BAD_INPUT
    except KeyboardInterrupt as interrupt:
        print(f"\nInterrupted. {interrupt}".rstrip(), file=sys.stderr)
        return INTERRUPTED


def _answer(arguments: Sequence[str]) -> int:
    """Prints the overview or the version, or runs the verb; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"qvla {package_version()}")
        return 0
    load_plugins()
    return run_verb(VERBS, "qvla", arguments)


def run_verb(verbs: Mapping[str, Verb], command: str, arguments: Sequence[str]) -> int:
    """Runs `command arguments`, whose first argument is one of `verbs`; returns its exit status."""
    name = arguments[0].replace("-", "_")
    rest = list(arguments[1:])
    if name not in verbs:
        raise _unknown(name, verbs, command)
    command = f"{command} {name}"
    with _missing_packages_explained(command, verbs[name]):  # heavy imports wait for `run`
        module = importlib.import_module(verbs[name].module)
        stages: dict[str, Verb] = getattr(module, "STAGES", {})
        if stages and rest and rest[0] == "all":
            rest = rest[1:]
        elif stages and rest and not rest[0].startswith("-"):
            return run_verb(stages, command, rest)
        parser = verb_parser(command, module)
        try:
            return int(module.run(parser.parse_args(underscored(rest))) or 0)
        except KeyboardInterrupt:
            raise InterruptedVerb(_how_to_go_on(command, module, rest)) from None


class InterruptedVerb(KeyboardInterrupt):
    """Ctrl-C in a verb; its text says how to go on."""


def _how_to_go_on(command: str, module: Any, rest: Sequence[str]) -> str:
    """What the same command does next time, and with what option it goes on where it was.

    A module whose verb resumes has RESUME_WITH: the option for it, or "" if it needs none.
    """
    option = getattr(module, "RESUME_WITH", None)
    if option is None:
        return "No result was left half-written; the same command starts over."
    more = [option] if option and option not in underscored(rest) else []
    return f"This goes on where it was: {shlex.join([*command.split(), *rest, *more])}"


def verb_parser(command: str, module: Any) -> argparse.ArgumentParser:
    """The parser of `command`, with the options of the verb's module and a list of its stages."""
    stages: dict[str, Verb] = getattr(module, "STAGES", {})
    parser = argparse.ArgumentParser(
        prog=command, description=module.HELP, formatter_class=_HelpFormatter
    )
    module.add_arguments(parser)
    if stages:
        parser.usage = f"{command} [STAGE] [options]"
        title = f"stages (`{command} STAGE --help` lists the options of a stage):"
        parser.epilog = "\n".join([title, *summaries(stages)])
    return parser


def underscored(arguments: Sequence[str]) -> list[str]:
    """Reads `--calib-jsonl x` as `--calib_jsonl x`.

    Only option names change, not values, nor what follows a bare `--`.
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


def package_version() -> str:
    """Version of this package, e.g. "0.1.0"."""
    from qvla_ros import __version__

    return __version__


def plain_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> str:
    """The text of a warning: ours as a sentence, others as Python's, with their place."""
    if issubclass(category, QvlaWarning):
        return f"warning: {message}\n"
    return _python_s_way(message, category, *place, **more)


def print_error(error: QvlaError) -> None:
    """Prints a QvlaError to standard error: the key, what was found, what was expected, the fix."""
    from rich.console import Console
    from rich.text import Text

    rows = (("got", error.value), ("expected", error.expected), ("fix", error.fix))
    text = Text.assemble(("error: ", "bold red"), (_printable(error.key), "bold red"))
    for label, value in rows:
        if label == "fix" and not value:
            continue
        text.append(f"\n  {label + ':':<10}", style="red").append(_printable(value))
    Console(stderr=True, soft_wrap=True, highlight=False).print(text)


def _printable(value: object) -> str:
    """The text of a value; halves of characters, which JSON may hold, are spelled out."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


class _HelpFormatter(argparse.HelpFormatter):
    """Adds an option's default to its help, unless the help names it or it is None or False."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = (
            action.default is None or action.default is False or action.default is argparse.SUPPRESS
        )
        if silent or "default" in (action.help or ""):
            return action.help
        return f"{action.help} (default: %(default)s)"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """A text of several lines is a table and keeps them; others are wrapped."""
        return text if "\n" in text else super()._fill_text(text, width, indent)


def _unknown(name: str, verbs: Mapping[str, Verb], command: str) -> QvlaError:
    kind = "verb" if verbs is VERBS else "stage"
    moved = MOVED.get(name)
    fix = f"run `qvla {moved}`" if moved and kind == "verb" else f"run `{command} --help`"
    return QvlaError(kind, name, f"one of {', '.join(verbs)}", fix)


@contextmanager
def _missing_packages_explained(command: str, verb: Verb) -> Iterator[None]:
    """Turns a missing package into an error that names the fix.

    A missing module of our own is a bug and stays as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("qvla_ros.", "qvla_offline.", "qvla_reference.")):
            raise
        extra = f"[{verb.extra}]" if verb.extra else ""
        raise QvlaError(
            command,
            f"no Python module {error.name!r}",
            f"the packages that `{command}` needs",
            "in a checkout: make setup, or pip install --constraint "
            f"environment/constraints.txt '.{extra}'",
        ) from error


if __name__ == "__main__":
    sys.exit(main())
