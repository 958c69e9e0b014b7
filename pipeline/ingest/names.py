"""Names of files: spellings, names that no table can hold, links, lines."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from urllib.parse import unquote


def problem_of(uri: str) -> str | None:
    """Return why a file cannot be ingested under its name, as a reason."""
    if "\0" in uri:
        return f"unreadable_name: it holds a NUL ({escaped(uri)}); correct the list that names it"
    if uri != escaped(uri):
        # Linux names are bytes: old disks, ZIP archives and network shares hold other encodings.
        parts = uri.split("/")
        first = next(number for number, part in enumerate(parts) if part != escaped(part))
        name = escaped("/".join(parts[first:]))
        return f"unreadable_name: {name} is not UTF-8 text; rename the file or its folder"
    if os.path.islink(uri) and os.path.isdir(uri):
        return (
            "linked_folder: a link to another folder, which is not followed; name that folder "
            "itself, or copy it here"
        )
    return None


def escaped(text: str) -> str:
    r"""Return text that UTF-8 can hold: other bytes and NUL become ``\xe9``."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogatepass")
    return data.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def json_lines(text: str) -> list[str]:
    """Return the lines of JSON Lines; other separators of Unicode are text."""
    return [line for line in text.split("\n") if line.strip()]


def key_of(name: str) -> str:
    """Return what all spellings of a file's name have in common.

    Composed and decomposed accents, case, ``\\``, ``./`` and percent-encoding make no difference.
    """
    decoded = unquote(name, errors="replace") if re.search(r"%[0-9A-Fa-f]{2}", name) else name
    slashed = decoded.replace("\\", "/").strip()
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    return unicodedata.normalize("NFC", "/".join(parts)).casefold()


def pair(listed: Iterable[str], files: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Match names of a list to files where both mean one file.

    Args:
        listed: names as the list spells them, without those that are there as spelt.
        files: files that no list names.

    Returns:
        Listed name to its file, and listed name to the most similar file of those without one.
    """
    by_key: dict[str, list[str]] = {}
    for file in files:
        by_key.setdefault(key_of(file), []).append(file)
    found: dict[str, str] = {}
    similar: dict[str, str] = {}
    for name in listed:
        same = by_key.get(key_of(name), [])
        if len(same) == 1:
            found[name] = same[0]
        elif close := same or get_close_matches(key_of(name), by_key, n=1, cutoff=0.75):
            similar[name] = by_key[close[0]][0] if close[0] in by_key else close[0]
    return found, similar
