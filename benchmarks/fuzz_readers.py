"""Damages the inputs of every reader of the workstation, and counts what they make of it.

    python -m benchmarks.fuzz_readers --count 1000

Prints a table, and writes each damage that ended in a traceback, took longer than 30 s, or changed
the result without a word to --failures, one line each (tests/data/fuzz_corpus.jsonl holds those
that were repaired).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.support.fuzzed_readers import (
    READERS,
    as_json,
    outcome,
    random_mutations,
    reading,
    write_inputs,
)

KINDS = ("refused", "said", "equal", "other")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="damages a reader")
    parser.add_argument("--readers", default=",".join(READERS), help="some of them, by comma")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failures", type=Path, default=Path("out/fuzz_failures.jsonl"))
    args = parser.parse_args()
    args.failures.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, args.failures.open("w") as failures:
        work = write_inputs(Path(folder) / "work")
        print("| reader | damages | refused | said | equal | other value | failures | s |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for name in args.readers.split(","):
            started_s = time.monotonic()
            intact = reading(name, work)
            counts: Counter[str] = Counter()
            for mutation in random_mutations(name, work, args.count, args.seed):
                found = outcome(name, work, mutation, intact)
                counts[found if found in KINDS else "FAIL"] += 1
                if found not in KINDS:
                    failures.write(f"{as_json(name, mutation)}\t{found}\n")
                    failures.flush()
            cells = [str(counts[kind]) for kind in (*KINDS, "FAIL")]
            took_s = time.monotonic() - started_s
            print(f"| {name} | {args.count} | {' | '.join(cells)} | {took_s:.0f} |", flush=True)


if __name__ == "__main__":
    main()
