"""`qvla audit`: lists bytes and precision of every layer, in the graph and in its plans."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qvla_offline.audit import Audit

HELP = (
    "show what each layer really takes in graph and plans; exits 1 when that breaks the "
    "promise of the gates"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", required=True, help="directory of the bundle")
    parser.add_argument("--totals", action="store_true", help="leave out the table of layers")


def run(args: argparse.Namespace) -> int:
    from qvla_offline.audit import audit_bundle

    audit = audit_bundle(args.bundle)
    if not args.totals:
        _print_layers(audit)
    _print_totals(audit)
    for complaint in audit.complaints:
        print(f"BROKEN PROMISE {complaint}")
    if audit.complaints:
        print("verdict: the bundle is larger than its gates promise")
        return 1
    gated = any(layer.bits for layer in audit.layers)
    print(
        "verdict: the bundle holds what its gates promise"
        if gated
        else "verdict: no gates, so nothing was promised"
    )
    return 0


def _print_layers(audit: Audit) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for title in ("layer", "rows by bits asked", "bytes promised", "bytes in graph", *audit.plans):
        table.add_column(title, no_wrap=True)
    for layer in audit.layers:
        bits = "  ".join(f"{b}:{n}" for b, n in layer.bits.items()) or "-"
        promised = "-" if layer.promised_bytes is None else f"{layer.promised_bytes:,}"
        plans = [_sizes(layer.plan_bytes[plan]) for plan in audit.plans]
        table.add_row(layer.name, bits, promised, _sizes(layer.graph_bytes), *plans)
    # a table wider than the terminal beats one with names cut short
    console = Console(highlight=False, width=1000)
    console.width = console.measure(table).maximum
    console.print(table)


def _print_totals(audit: Audit) -> None:
    graph: Counter[str] = Counter()
    for layer in audit.layers:
        graph.update(layer.graph_bytes)
    total = sum(graph.values()) + audit.other_bytes
    print(
        f"graph: {total:,} bytes of tensors: {_sizes(graph)}, norms and constants "
        f"{audit.other_bytes:,}"
    )
    for plan, size in audit.plans.items():
        found: Counter[str] = Counter()
        for layer in audit.layers:
            found.update(layer.plan_bytes[plan])
        print(
            f"plan {plan}: {size:,} bytes; weights found in it: {_sizes(found)}; the rest "
            "is kernels and the like"
        )
        if "not found" in found:
            print(
                "  not found: in a layout of the builder's own; to find its type takes the "
                "engine inspector, on a GPU"
            )
        if found["float32"] and "float32" not in graph:
            print(
                "  float16 weights are float32 in it: export with --compute_dtype float16 "
                "to keep them small"
            )
    for plan in audit.stale:
        print(f"plan {plan}: built from another graph, not looked into; run `qvla build` again")
    if audit.absent:
        shown = ", ".join(audit.absent[:3])
        print(
            "gated but without a weight in the graph, never executed or of 0 bits: "
            f"{len(audit.absent)}: {shown} ..."
        )


def _sizes(sizes: dict[str, int]) -> str:
    return "  ".join(f"{precision} {size:,}" for precision, size in sorted(sizes.items())) or "-"
