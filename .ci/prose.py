"""Check docstring first lines and the vocabulary of code and prose.

Run ``python .ci/prose.py`` in the checkout. It prints one line per finding and exits 1 if there
is any. The words are the left column of the glossary in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LONGEST_FIRST_LINE = 72
SUFFIXES = (".py", ".md", ".sql", ".j2", ".yaml", ".toml")
SKIPPED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    ".ci/prose.py",
    "tests/benchmarks/results/",
    "uv.lock",
)

GLOSSARY = {
    r"somebody|someone|nobody|whoever|everybody|anybody": "user, annotator, person, process",
    r"nowhere": "missing",
    r"anew": "again",
    r"mend(s|ed|ing)?": "hint, fix",
    r"rooms?|chairs?|doors?|houses?": "package, role, API, repository",
    r"roads?": "path",
    r"leavers?|farewells?": "data subject, erasure report",
    r"crews?|hire[sd]?|hiring": "pool, spawn",
    r"last word": "worker error",
    r"shelf|arrivals?": "registry, download",
    r"lessons?|teaching|taught|untaught": "dataset, training data, supported units",
    r"wish(es|ed)?": "options, request",
    r"owed|owes?": "votes missing",
    r"in step": "synchronised",
    r"dice|grain|painter": "generators, noise, sampler",
    r"made faces?": "synthetic faces",
    r"lens": "DuckDB views",
    r"nameless": "order independent of rater names",
    r"innocent|blame[sd]?": "node failure",
    r"patience": "retry policy",
    r"filmed (person|people)": "subject account",
    r"asked again": "re-annotate",
    r"told": "message, info, condition",
}
ALLOWED = (
    r"white house",
    r"\"taught\"",  # a key of saved weights
    r"film grain",
    r"--reuid=nobody|\"nobody\", \"nogroup\"",  # system user
)
"""Phrases of the field in which a word of the glossary has its plain meaning."""

_WORDS = re.compile("|".join(rf"\b(?:{words})\b" for words in GLOSSARY), re.IGNORECASE)
_ALLOWED = re.compile("|".join(ALLOWED), re.IGNORECASE)


def tracked() -> list[Path]:
    """Files of the checkout, tracked or new, that hold code or prose."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [Path(line) for line in listed.stdout.splitlines()]
    return [
        path
        for path in paths
        if path.suffix in SUFFIXES and path.is_file() and not path.as_posix().startswith(SKIPPED)
    ]


def long_first_lines(path: Path, text: str) -> Iterator[str]:
    """Yield docstrings whose first line is longer than 72 characters."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds) and (found := ast.get_docstring(node)):
            first = found.splitlines()[0]
            if len(first) > LONGEST_FIRST_LINE:
                line = node.body[0].lineno
                yield f"{path}:{line}: first docstring line has {len(first)} characters: {first}"


def glossary_words(path: Path, text: str) -> Iterator[str]:
    """Yield lines that use a word of the glossary's left column."""
    for number, line in enumerate(text.splitlines(), start=1):
        for match in _WORDS.finditer(_ALLOWED.sub("", line)):
            word = match[0]
            instead = next(
                use for words, use in GLOSSARY.items() if re.fullmatch(words, word, re.IGNORECASE)
            )
            yield f"{path}:{number}: '{word}': use {instead}"


def main() -> int:
    """Print every finding; return 1 if there is any."""
    findings: list[str] = []
    for path in tracked():
        text = path.read_text()
        findings += glossary_words(path, text)
        if path.suffix == ".py":
            findings += long_first_lines(path, text)
    print(*findings, sep="\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
