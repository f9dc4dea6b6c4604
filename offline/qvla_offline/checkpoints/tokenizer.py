"""A small tokenizer of Llama's kind, for policies too small to carry Llama-2's 32000 tokens.

Same make as Llama-2's: byte-pair merges over "▁"-joined words, byte fallback, <unk> 0, <s> 1, </s>
2, the 256 bytes from 3 on, <s> put before every text, and <PAD> added behind the vocabulary as
OpenVLA adds it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from qvla_ros.errors import QvlaError

PROMPT_TEMPLATE = "In: What action should the robot take to {instruction}?\nOut:"
SPACE = "▁"

# Task.language of LIBERO's four evaluation suites, as words; repeated ones are listed once.
LIBERO_INSTRUCTIONS: tuple[str, ...] = (
    *(
        f"pick up the {name} and place it in the basket"
        for name in (
            "alphabet soup",
            "cream cheese",
            "salad dressing",
            "bbq sauce",
            "ketchup",
            "tomato sauce",
            "butter",
            "milk",
            "chocolate pudding",
            "orange juice",
        )
    ),
    *(
        f"pick up the black bowl {place} and place it on the plate"
        for place in (
            "between the plate and the ramekin",
            "from table center",
            "in the top drawer of the wooden cabinet",
            "next to the cookie box",
            "next to the plate",
            "next to the ramekin",
            "on the cookie box",
            "on the ramekin",
            "on the stove",
            "on the wooden cabinet",
        )
    ),
    "open the middle drawer of the cabinet",
    "open the top drawer and put the bowl inside",
    "push the plate to the front of the stove",
    "put the bowl on the plate",
    "put the bowl on the stove",
    "put the bowl on top of the cabinet",
    "put the cream cheese in the bowl",
    "put the wine bottle on the rack",
    "put the wine bottle on top of the cabinet",
    "turn on the stove and put the moka pot on it",
    "put the black bowl in the bottom drawer of the cabinet and close it",
    "put the yellow and white mug in the microwave and close it",
    "put both moka pots on the stove",
    "put both the alphabet soup and the cream cheese box in the basket",
    "put both the cream cheese box and the butter in the basket",
    "put the white mug on the left plate and put the yellow and white mug on the right plate",
    "put the white mug on the plate and put the chocolate pudding to the right of the plate",
    "pick up the book and place it in the back compartment of the caddy",
)


def train_tokenizer(
    instructions: Iterable[str] = LIBERO_INSTRUCTIONS, vocab_size: int = 704
) -> Tokenizer:
    """A tokenizer whose vocabulary holds at most `vocab_size` ids, <PAD> excluded.

    The same for the same texts.
    """
    texts = [PROMPT_TEMPLATE.format(instruction=text.lower()) for text in instructions]
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    reserved = ["<unk>", "<s>", "</s>", *byte_tokens]
    learner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    learner.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement=SPACE, prepend_scheme="first", split=True
    )
    letters = [*sorted(set("".join(texts)) - {"\n", " "}), SPACE]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(reserved),
        initial_alphabet=letters,
        show_progress=False,
        min_frequency=2,
    )
    learner.train_from_iterator([line for text in texts for line in text.split("\n")], trainer)

    learned = json.loads(learner.to_str())["model"]
    words = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    vocabulary = {token: index for index, token in enumerate(reserved + words)}
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.pre_tokenizer = learner.pre_tokenizer
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "</s>")]
    )
    tokenizer.add_special_tokens([AddedToken("<PAD>", normalized=False)])
    return tokenizer


def pad_token_id(tokenizer: Tokenizer) -> int:
    """The id of <PAD>; QvlaError for a tokenizer without one."""
    found = tokenizer.token_to_id("<PAD>")
    if found is None:
        fix = "take the tokenizer of an OpenVLA checkpoint"
        raise QvlaError("tokenizer.json", "no <PAD>", "a tokenizer with <PAD>", fix)
    return found


def padded_vocabulary(tokenizer: Tokenizer, multiple: int = 64) -> int:
    """Rows of the embedding: ids without <PAD>, rounded up to `multiple`, and one more `multiple`
    as OpenVLA has.
    """
    ids = tokenizer.get_vocab_size(with_added_tokens=True) - 1
    return -(-ids // multiple) * multiple + multiple
