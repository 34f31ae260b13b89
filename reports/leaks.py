"""
The leak gate: looks once more through everything a run is about to hand out.

What is written passes the redactor before; this finds what took another way. A finding names file
and kind and never quotes the text. Row data has its own places, which are never handed out.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fixtures.evidence import find_leaks
from reports import onefile
from reports.seal import bundle_files

#: characters looked at in one go; the overlap keeps a value on the border whole
CHUNK: Final = 1 << 20
OVERLAP: Final = 512
#: files whose strings are looked at one by one: bare numbers in them (times, sizes) are no cards
_JSON: Final = frozenset({".json", ".jsonl"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """
    One finding.

    Attributes:
        file: path within the run's folder, and part of it where it holds parts.
        kind: such as "known secret" or "e-mail address".
    """

    file: str
    kind: str


def scan(run_dir: Path) -> list[Leak]:
    """
    Return what must not be handed out, by file and kind.
    """
    found = {
        Leak(file=name, kind=kind)
        for path in bundle_files(run_dir)
        for name, text in _texts(path, run_dir)
        for kind in find_leaks(text)
    }
    return sorted(found, key=lambda leak: (leak.file, leak.kind))


def _texts(path: Path, run_dir: Path) -> Iterator[tuple[str, str]]:
    name = path.relative_to(run_dir).as_posix()
    if path.suffix in _JSON:
        yield from ((name, text) for text in _json_strings(path))
    elif path.suffix == ".html":
        text = path.read_text(encoding="utf-8", errors="replace")
        yield from _page_texts(name, text)
    else:
        yield from ((name, text) for text in _chunks(path))


def _page_texts(name: str, text: str) -> Iterator[tuple[str, str]]:
    parts = list(onefile.embedded_parts(text))
    if not parts:
        yield name, text
        return
    # the application's own code is the generator's, and full of things shaped like addresses: what the
    # run put into the page is its markup and the embedded parts
    yield name, onefile.visible_text(text)
    for part, body in parts:
        if part.endswith(".json"):
            yield from ((f"{name}:{part}", string) for string in _strings(_parsed(body)))
        else:
            yield f"{name}:{part}", body


def _json_strings(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines() if path.suffix == ".jsonl" else [text]:
        yield from _strings(_parsed(line))


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for item in (*value.keys(), *value.values()) for text in _strings(item))
    elif isinstance(value, list):
        yield from (text for item in value for text in _strings(item))


def _chunks(path: Path) -> Iterable[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        kept = ""
        while text := file.read(CHUNK):
            yield kept + text
            kept = text[-OVERLAP:]
