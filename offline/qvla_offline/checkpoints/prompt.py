"""The prompt of a checkpoint, and the rules of Llama's tokenizer that make its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from qvla_offline.checkpoints.stored import COMPLETE
from qvla_offline.checkpoints.tokenizer import PROMPT_TEMPLATE, SPACE
from qvla_ros.bundle import PromptSpec
from qvla_ros.errors import QvlaError
from qvla_ros.tokenizer import read_tokenizer

TOKENIZER_FILE = "tokenizer.json"


def checkpoint_tokenizer(directory: Path) -> Tokenizer:
    """tokenizer.json of a checkpoint directory; QvlaError if it is missing or not readable."""
    file = directory / TOKENIZER_FILE
    if not file.is_file():
        raise QvlaError(str(file), "no such file", "the tokenizer of the checkpoint", COMPLETE)
    return read_tokenizer(file, COMPLETE)


def llama_prompt(directory: Path, tokenizer: Tokenizer, template: str) -> PromptSpec:
    """The prompt of a policy on Llama: in lower case, begun by <s>, ended by a lone "▁".

    QvlaError if the tokenizer is not of Llama's kind.
    """
    file = directory / TOKENIZER_FILE
    first = next(iter(tokenizer.encode("In").tokens), None)
    if first != "<s>":
        raise QvlaError(
            str(file),
            f"prompts that begin with {first!r}",
            "<s>, which Llama's begin with",
            COMPLETE,
        )
    last = tokenizer.token_to_id(SPACE)
    if last is None:
        raise QvlaError(
            str(file), "no token '▁'", "a Llama tokenizer, whose lone '▁' ends the prompt", COMPLETE
        )
    return PromptSpec(template, lowercase=True, append_token_id=last)


def openvla_prompt(directory: Path, data: Mapping[str, Any], tokenizer: Tokenizer) -> PromptSpec:
    """The prompt of OpenVLA and of the families that were made from it."""
    return llama_prompt(directory, tokenizer, PROMPT_TEMPLATE)
