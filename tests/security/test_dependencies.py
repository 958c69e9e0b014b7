"""Dependencies are pinned by hash and origin; needs no network."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from annotation.label_studio import installation

ROOT = Path(__file__).resolve().parents[2]


def test_lock__hash_and_index_of_every_package() -> None:
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    assert len(packages) > 100
    odd = []
    for package in packages:
        if package["source"] in ({"editable": "."}, {"virtual": "."}):
            continue
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
        hashed = [re.fullmatch(r"sha256:[0-9a-f]{64}", file.get("hash", "")) for file in files]
        if package["source"] != {"registry": "https://pypi.org/simple"} or not all(hashed):
            odd.append(package["name"])
        elif not files:
            odd.append(f"{package['name']} without a file")
    assert odd == []


def test_label_studio__is_pinned() -> None:
    lines = installation.CONSTRAINTS.read_text().splitlines()
    pins = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    assert len(pins) > 100
    loose = [
        line for line in pins if not re.match(r"[A-Za-z0-9._-]+(\[[\w,-]+\])?==[\w.+!]+", line)
    ]
    assert loose == []
    assert any(line.startswith(f"label-studio=={installation.VERSION}") for line in pins) or (
        f"label-studio=={installation.VERSION}" in " ".join(installation._uv_command())
    )
