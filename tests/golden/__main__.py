"""Rewrite the golden files: ``python -m tests.golden [--demo]``."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from tests.golden import snapshots


def main() -> None:
    parser = argparse.ArgumentParser(prog=snapshots.UPDATE, description=__doc__)
    parser.add_argument(
        "--demo",
        action="store_true",
        help=f"also run `risorius demo` (minutes) and rewrite {snapshots.DEMO_RELEASE}",
    )
    options = parser.parse_args()
    for name, snapshot in snapshots.SNAPSHOTS.items():
        _write(name, snapshot())
    if options.demo:
        _write(snapshots.DEMO_RELEASE, _demo_release())


def _demo_release() -> str:
    from tests.end_to_end.conftest import risorius

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        try:
            risorius("demo", home=home)
            shown = json.loads(risorius("release", "show", "--json", home=home).stdout)
        finally:
            risorius("studio", "down", home=home, check=False)
    return snapshots.demo_release(shown)


def _write(name: str, text: str) -> None:
    path = snapshots.FOLDER / name
    changed = not path.exists() or path.read_text(encoding="utf-8") != text
    path.write_text(text, encoding="utf-8")
    print(f"{name}: {'changed' if changed else 'unchanged'}")


if __name__ == "__main__":
    main()
