"""No damaged file ends a reader in a traceback, or changes its result without a word.

benchmarks/fuzz_readers.py does this with thousands of damages; what it once found is the corpus.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fuzzed_readers import (
    READERS,
    Reading,
    from_json,
    outcome,
    random_mutations,
    reading,
    write_inputs,
)
from tests.support.mutations import Mutation

CORPUS = (Path(__file__).parent / "data" / "fuzz_corpus.jsonl").read_text().splitlines()
DAMAGES = 6  # a reader


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("fuzzed") / "work")


@pytest.fixture(scope="module")
def intact(work: Path) -> dict[str, Reading]:
    return {name: reading(name, work) for name in READERS}


@pytest.mark.parametrize("line", CORPUS)
def test_a_damage_that_once_broke_a_reader_does_not(line: str, work: Path, intact) -> None:
    name, mutation = from_json(line)
    assert outcome(name, work, mutation, intact[name]) in ("refused", "equal")


@pytest.mark.parametrize("name", READERS)
def test_random_damages_are_refused_said_or_change_nothing(name: str, work: Path, intact) -> None:
    for mutation in random_mutations(name, work, DAMAGES, seed=3):
        found = outcome(name, work, mutation, intact[name])
        assert not found.startswith("FAIL"), (mutation, found)


def test_weights_that_end_in_zeros_are_told(work: Path, intact) -> None:
    """A download that was not finished leaves the end of its file empty."""
    mutation = Mutation("model.safetensors", "zero", (0.5,))
    assert outcome("checkpoint", work, mutation, intact["checkpoint"]) == "said"
