"""Names that no table can hold, links that are not followed, lines."""

from __future__ import annotations

import os


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
