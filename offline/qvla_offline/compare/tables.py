"""The tables of a comparison: Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qvla_offline.compare.document import Comparison
from qvla_offline.compare.episodes import ALL_SUITES, ClosedLoopResult
from qvla_offline.compare.policies import ComparedPolicy

ABSENT = "–"
_MOTION_PLACES = {"steps": 1, "path_length_m": 3, "jerk_m_s3": 1, "gripper_flips": 2}
Cells = Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Table:
    """A heading a column, and rows of text. The first column names the policy."""

    headings: tuple[str, ...]
    rows: Cells
    caption: str

    def markdown(self) -> str:
        """The table as Markdown; numbers are aligned to the right."""
        rule = ("---", *("---:" for _ in self.headings[1:]))
        return "\n".join(f"| {' | '.join(row)} |" for row in (self.headings, rule, *self.rows))

    def latex(self) -> str:
        """The table as LaTeX; it needs \\usepackage{booktabs}."""
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(self.caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(self.headings) - 1)}}}",
            r"\toprule",
            _latex_row(self.headings),
            r"\midrule",
            *(_latex_row(row) for row in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines)


def tables(comparison: Comparison) -> list[Table]:
    """Size and error; with episodes also success, motion, and success by suite."""
    found = [_sizes(comparison)]
    if comparison.results:
        found += [_success(comparison), _by_suite(comparison), _motion(comparison)]
    return found


def csv_text(comparison: Comparison) -> str:
    """All numbers, a line for each policy and suite; empty where something was not measured."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_POLICY_NUMBERS, *_RESULT_NUMBERS])
    for policy in comparison.policies:
        known = [number(policy) for number in _POLICY_NUMBERS.values()]
        own = [result for result in comparison.results if result.policy == policy.name]
        measured = [[number(result) for number in _RESULT_NUMBERS.values()] for result in own]
        for numbers in measured or [[]]:
            writer.writerow(["" if value is None else value for value in (*known, *numbers)])
    return text.getvalue()


def _sizes(comparison: Comparison) -> Table:
    headings = (
        *("policy", "nominal bits", "stored bits", "quantized layers, MB", "action error"),
        *("95 % interval", "median", "maximum"),
    )
    rows = [
        (
            policy.name,
            _decimals(policy.nominal_bits, 2),
            _decimals(policy.stored_bits, 2),
            _decimals(_or_none(policy.quantized_bytes, 1e-6), 2),
            *_error(policy),
        )
        for policy in comparison.policies
    ]
    measured = [policy.error for policy in comparison.policies if policy.error is not None]
    caption = (
        "Action error: squared normalised actions, summed over a chunk, mean over "
        f"{measured[0].observations if measured else 0} held-out observations; bits of a weight "
        "with scales, over the layers that are quantized."
    )
    return Table(headings, rows, caption)


def _error(policy: ComparedPolicy) -> tuple[str, ...]:
    error = policy.error
    if error is None:
        return (ABSENT,) * 4
    interval = f"{_short(error.low)} to {_short(error.high)}"
    return _short(error.mean), interval, _short(error.median), _short(error.maximum)


def _success(comparison: Comparison) -> Table:
    headings = (
        *("policy", "success", "95 % interval", "kept of float", "95 % interval"),
        *("float alone", "it alone", "McNemar p"),
    )
    rows = [
        (
            result.policy,
            f"{result.successes}/{result.trials}",
            _percent_range(result.interval),
            _percent(result.kept),
            ABSENT if result.kept_interval is None else _percent_range(result.kept_interval),
            str(result.pairing.only_first),
            str(result.pairing.only_second),
            _short(result.pairing.p_value),
        )
        for result in _of_suite(comparison, ALL_SUITES)
    ]
    caption = (
        "Success in closed loop, all suites; same initial states for all policies. Intervals: "
        "Wilson, and bootstrap over initial states."
    )
    return Table(headings, rows, caption)


def _by_suite(comparison: Comparison) -> Table:
    suites = list(dict.fromkeys(result.suite for result in comparison.results))
    rows = []
    for policy in comparison.policies:
        own = {r.suite: r for r in comparison.results if r.policy == policy.name}
        rows.append((policy.name, *(_counted(own[suite]) for suite in suites)))
    return Table(("policy", *suites), rows, "Success by suite, and its share of float's.")


def _motion(comparison: Comparison) -> Table:
    headings = ("policy", "episodes", "steps", "path, m", "jerk, m/s³", "gripper flips")
    rows = [
        (result.policy, str(result.pairing.both), *_against_float(result))
        for result in _of_suite(comparison, ALL_SUITES)
    ]
    caption = (
        "Motion: means over the episodes that float and the policy both solved, and how they "
        "differ from float's in the same ones."
    )
    return Table(headings, rows, caption)


def _against_float(result: ClosedLoopResult) -> list[str]:
    own = result.motion
    reference = result.motion_of_float
    if own is None or reference is None:
        return [ABSENT] * len(_MOTION_PLACES)
    return [
        f"{getattr(own, name):.{places}f} ({_change(getattr(own, name), getattr(reference, name))})"
        for name, places in _MOTION_PLACES.items()
    ]


def _change(own: float, reference: float) -> str:
    return ABSENT if reference == 0 else f"{100 * (own / reference - 1):+.1f} %"


def _of_suite(comparison: Comparison, suite: str) -> list[ClosedLoopResult]:
    return [r for r in comparison.results if r.suite == suite and r.trials]


def _counted(result: ClosedLoopResult) -> str:
    if not result.trials:
        return ABSENT
    return f"{result.successes}/{result.trials} ({_percent(result.kept)})"


_POLICY_NUMBERS: dict[str, Callable[[ComparedPolicy], object]] = {
    "policy": lambda policy: policy.name,
    "kind": lambda policy: policy.kind,
    "nominal_bits": lambda policy: policy.nominal_bits,
    "stored_bits": lambda policy: policy.stored_bits,
    "quantized_bytes": lambda policy: policy.quantized_bytes,
    "weight_bytes": lambda policy: policy.weight_bytes,
    "action_error": lambda policy: policy.error and policy.error.mean,
    "action_error_low": lambda policy: policy.error and policy.error.low,
    "action_error_high": lambda policy: policy.error and policy.error.high,
    "action_error_median": lambda policy: policy.error and policy.error.median,
    "action_error_maximum": lambda policy: policy.error and policy.error.maximum,
}
_RESULT_NUMBERS: dict[str, Callable[[ClosedLoopResult], object]] = {
    "suite": lambda result: result.suite,
    "successes": lambda result: result.successes,
    "trials": lambda result: result.trials,
    "success_low": lambda result: result.interval[0],
    "success_high": lambda result: result.interval[1],
    "kept": lambda result: result.kept,
    "kept_low": lambda result: result.kept_interval and result.kept_interval[0],
    "kept_high": lambda result: result.kept_interval and result.kept_interval[1],
    "float_alone": lambda result: result.pairing.only_first,
    "policy_alone": lambda result: result.pairing.only_second,
    "mcnemar_p": lambda result: result.pairing.p_value,
    "steps": lambda result: result.motion and result.motion.steps,
    "path_length_m": lambda result: result.motion and result.motion.path_length_m,
    "jerk_m_s3": lambda result: result.motion and result.motion.jerk_m_s3,
    "gripper_flips": lambda result: result.motion and result.motion.gripper_flips,
}


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_escaped, cells)) + r" \\"


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    special |= {"³": "$^3$", ABSENT: "--"}
    return "".join(special.get(character, character) for character in text)


def _or_none(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _decimals(value: float | None, places: int) -> str:
    return ABSENT if value is None else f"{value:.{places}f}"


def _short(value: float) -> str:
    return f"{value:.2g}"


def _percent(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.1f} %"


def _percent_range(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
