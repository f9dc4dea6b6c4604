"""tokenizer.json of a checkpoint or a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qvla_ros.errors import QvlaError


def read_tokenizer(path: Path, fix: str) -> Any:
    """The tokenizers.Tokenizer of the file, which neither pads nor truncates prompts.

    Else QvlaError.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for anything it cannot parse
        expected = "a tokenizer.json that `tokenizers` reads"
        raise QvlaError(str(path), error, expected, fix) from None
    tokenizer.no_padding()  # prompts are as long as they are, whatever the file was saved with
    tokenizer.no_truncation()
    return tokenizer


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text, special tokens included.

    QvlaError if the tokenizer fails on it: a file can be read and still lack a token that its own
    rules name.
    """
    try:
        return list(tokenizer.encode(text).ids)
    except BaseException as error:  # a panic of tokenizers is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        expected = f"a tokenizer that reads {text!r}"
        fix = "take tokenizer.json from where the checkpoint came from, and export again"
        raise QvlaError("tokenizer.json", error, expected, fix) from None
