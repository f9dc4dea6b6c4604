"""Small damages to files, as data: drawn at random, written down, and done again.

A strict one breaks the form of a file: its reader has to refuse it, to say what it did, or to give
what it gave before. The others give a file another content, which no reader can know.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import yaml

STRICT = frozenset(
    ["delete", "rename", "retype", "add", "truncate", "empty", "remove", "zero", "column", "cast"]
)
# Of a file that ends with any line, and of binary data, less is only another content.
_ENDS_ANYWHERE = (".yaml", ".jsonl")
# What stands where something else should: by its JSON text, since some of it is no JSON value.
WRONG = [
    "null",
    "true",
    '""',
    '"x"',
    '"\\ud800"',
    '"a\\u0000b"',
    "-1",
    "0",
    "1e999",
    "NaN",
    "1e-320",
    "123456789012345678901234567890",
    "[]",
    "[[]]",
    "{}",
    '{"a":1}',
    "[null]",
    '"../x"',
    '"{0}"',
    '"1"',
    "0.5",
    "9007199254740993",
]
DEEP = "[" * 5000


@dataclass(frozen=True)
class Mutation:
    """One damage. file: relative to the input. kind: what is done; place and value: where, to what.

    For text, place is the path of keys to an entry and value its JSON text; for bytes, place is
    [offset, length] in parts of the file, and value the new bytes in hexadecimal.
    """

    file: str
    kind: str
    place: tuple[Any, ...] = ()
    value: str = ""

    def apply(self, root: Path) -> None:
        """Damages the file below `root`."""
        path = root / self.file
        if self.kind == "remove":
            path.unlink()
        elif self.kind in ("truncate", "empty", "zero", "flip", "deep"):
            path.write_bytes(self._bytes(path.read_bytes()))
        elif self.kind in ("column", "cast"):
            self._change_table(path)
        else:
            _rewrite(path, lambda content: _edited(content, self.kind, self.place, self.value))

    def _bytes(self, data: bytes) -> bytes:
        if self.kind == "empty":
            return b""
        if self.kind == "deep":
            return DEEP.encode()
        start = int(self.place[0] * len(data))
        if self.kind == "truncate":
            return data[:start]
        new = bytes(len(data) - start) if self.kind == "zero" else bytes.fromhex(self.value)
        return data[:start] + new + data[start + len(new) :]

    def _change_table(self, path: Path) -> None:
        table = parquet.read_table(path)
        name = self.place[0]
        at = table.column_names.index(name)
        if self.kind == "cast":
            column = pa.array([str(value) for value in table[name].to_pylist()])
            changed = table.set_column(at, name, column)
        elif self.value == "rename":
            names = [f"{name}_" if each == name else each for each in table.column_names]
            changed = table.rename_columns(names)
        else:
            changed = table.drop_columns([name])
        parquet.write_table(changed, path)


def drawn(root: Path, files: list[str], rng: random.Random) -> Mutation:
    """A random damage to one of `files` below `root`."""
    file = rng.choice(files)
    path = root / file
    whole = rng.random()
    if whole < 0.12:
        return Mutation(file, rng.choice(["truncate", "zero"]), (round(rng.random(), 4),))
    if whole < 0.17:
        return Mutation(file, rng.choice(["empty", "remove", "deep"]))
    if path.suffix == ".parquet" and whole < 0.7:
        column = rng.choice(parquet.read_schema(path).names)
        kind = rng.choice(["column", "cast"])
        return Mutation(file, kind, (column,), rng.choice(["rename", "drop"]))
    if whole < 0.25 or not _is_text(path):
        return Mutation(
            file, "flip", (round(rng.random(), 4),), rng.randbytes(1 + rng.randrange(4)).hex()
        )
    content: Any = None

    def look(found: Any) -> Any:
        nonlocal content
        content = found
        return found

    _rewrite(path, look, keep=True)
    places = list(_places(content))
    place = rng.choice(places) if places else ()
    kind = rng.choice(["delete", "rename", "retype", "retype", "retype", "add"])
    text = rng.choice(WRONG)
    in_list = bool(place) and isinstance(place[-1], int)
    if in_list and kind == "delete":
        kind = "shorten"
    elif in_list or kind == "retype":
        kind = "value" if _same_type(_entry(content, place), text, path) else "retype"
    return Mutation(file, kind, place, text)


def strict(mutation: Mutation) -> bool:
    """Whether a reader must not give another result without a word."""
    suffix = Path(mutation.file).suffix
    if mutation.kind == "truncate" and suffix in _ENDS_ANYWHERE:
        return False
    if mutation.kind == "zero" and suffix not in (".json", ".yaml"):
        return False
    return mutation.kind in STRICT


def _entry(content: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        content = content[key]
    return content


def _same_type(old: Any, text: str, path: Path) -> bool:
    """Whether the new value is one more of the kind that stands there."""
    new = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (old, new))
    return numbers or old is None or type(old) is type(new)


def _is_text(path: Path) -> bool:
    return path.suffix in (".json", ".jsonl", ".yaml", ".safetensors")


def _places(content: Any, place: tuple[Any, ...] = ()) -> Any:
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(entries)[:40]:
        yield (*place, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*place, key))


def _edited(content: Any, kind: str, place: tuple[Any, ...], text: str) -> Any:
    """The content with one entry changed; the new value is a marker that _rewrite replaces."""
    if not place:
        return Raw(text)
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    key = place[-1]
    if kind in ("delete", "shorten"):
        del parent[key]
    elif kind == "rename" and isinstance(parent, dict):
        parent[f"{key}_"] = parent.pop(key)
    elif kind == "add" and isinstance(parent, dict):
        parent["surplus"] = Raw(text)
    else:
        parent[key] = Raw(text)
    return content


@dataclass(frozen=True)
class Raw:
    """JSON text that is written as it is."""

    text: str


def _dumped(content: Any) -> str:
    """JSON with every Raw in it written as it is."""
    raws: list[str] = []

    def marked(value: Any) -> str:
        raws.append(value.text)
        return f"@raw{len(raws) - 1}@"

    text = json.dumps(content, default=marked)
    for index, raw in enumerate(raws):
        text = text.replace(f'"@raw{index}@"', raw)
    return text


def _rewrite(path: Path, change: Callable[[Any], Any], keep: bool = False) -> None:
    """Changes the content of a JSON, JSONL or YAML file, or the header of a safetensors file."""
    data = path.read_bytes()
    if path.suffix == ".safetensors":
        size = int.from_bytes(data[:8], "little")
        header = _dumped(change(json.loads(data[8 : 8 + size]))).encode()
        new = len(header).to_bytes(8, "little") + header + data[8 + size :]
    elif path.suffix == ".jsonl":
        lines = data.decode().strip().split("\n")
        found = change([json.loads(line) for line in lines])
        rows = found if isinstance(found, list) else [found]
        new = ("\n".join(_dumped(row) for row in rows) + "\n").encode()
    else:
        text = data.decode()
        content = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
        new = _dumped(change(content)).encode()  # JSON is YAML
    if not keep:
        path.write_bytes(new)
