"""Plant secrets in every input and search outputs and files for them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.media_files import SIX_PEOPLE

RISORIUS = [sys.executable, "-c", "from pipeline.cli import main; main()"]

WORDS = {
    "studio url": "planted-studio-word",
    "studio key": "planted-studio-key-1f6d",
    "s3 key": "planted-s3-secret-8a77",
    "hub token": "hf_plantedPlantedPlanted42",
    "postgres": "planted-postgres-word",
    "settings file": "planted-file-word",
    "plug-in": "planted-plugin-word",
    "plug-in's source": "hf_sourceSourceSource42",
}

CLOSED_PORT = "127.0.0.1:9"
"""The discard port: nothing answers there."""


_UNSET = {"LABEL_STUDIO_API_KEY": "", "RISORIUS_WORKERS": ""}
"""So that the settings file has its say."""

PLUG_IN = f"""\
import os

def rate(faces):
    try:
        raise KeyError(os.environ["MODEL_API_KEY"])
    except KeyError as error:
        raise ConnectionError("no answer to {WORDS["plug-in's source"]}") from error
"""

EXPECTED = [0, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1]
"""Exit codes of the commands: those that need a service that is away fail."""


def planted(home: Path) -> dict[str, str]:
    """An environment full of secrets, each for a service that is away."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("RISORIUS_")},
        "LABEL_STUDIO_URL": f"http://me:{WORDS['studio url']}@{CLOSED_PORT}",
        "LABEL_STUDIO_API_KEY": WORDS["studio key"],
        "AWS_ACCESS_KEY_ID": "planted-id",
        "AWS_SECRET_ACCESS_KEY": WORDS["s3 key"],
        "AWS_ENDPOINT_URL": f"http://{CLOSED_PORT}",
        "AWS_MAX_ATTEMPTS": "1",
        "HF_TOKEN": WORDS["hub token"],
        "HF_ENDPOINT": f"http://{CLOSED_PORT}",
        "MODEL_API_KEY": WORDS["plug-in"],
        "RISORIUS_WORKERS": "1",
        "RISORIUS_WORK": str(home.parent / "work"),
        "RISORIUS_HOME": str(home),
        "COLUMNS": "400",
    }


def search(folder: Path) -> dict[str, Any]:
    """Run commands that succeed and commands that fail.

    Each runs with and without ``--debug``.

    Returns:
        commands given, files searched, and every place where a planted word stands.
    """
    from tests.warehouse.people_home import people_home, release
    from warehouse.storage.home import Home

    home, released = Home.at(folder / "home"), people_home(Home.at(folder / "released"))
    release(released)
    pictures = folder / "pictures"
    pictures.mkdir()
    (pictures / "six.jpg").write_bytes(SIX_PEOPLE.read_bytes())
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "risorius.toml").write_text(
        f'label_studio_api_key = ["{WORDS["settings file"]}"]\nworkers = "many"\n'
    )
    (elsewhere / "planted_rater.py").write_text(PLUG_IN)
    plug_in = {
        "RISORIUS_RATER": "planted_rater:rate", "PYTHONPATH": str(elsewhere),
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    postgres = {"RISORIUS_DAGSTER_POSTGRES": f"postgresql://me:{WORDS['postgres']}@{CLOSED_PORT}/x"}
    commands: list[tuple[list[str], dict[str, str], Path]] = [
        (["ingest", str(pictures), "--batch", "six"], {}, folder),
        (["ingest", str(pictures), "--batch", "six", "--debug"], plug_in, folder),
        (["label", "push"], {}, folder),
        (["label", "pull", "--debug"], {}, folder),
        (["studio", "status", "--debug"], {}, folder),
        (["doctor", "--json"], {}, folder),
        (["release", "publish", "--repo", "me/faces", "--home", str(released.root)], {}, folder),
        (["sql", "SELECT 1 AS one"], {}, folder),
        (["sql", "SELECT 1 AS one", "--debug"], _UNSET, elsewhere),
        (["ingest", str(pictures), "--debug"], postgres, folder),
        (["sql", "SELECT 1", "--debug"], {"RISORIUS_HOME": "s3://planted/home"}, folder),
        (
            ["sql", "SELECT 1", "--home", f"s3://id:{WORDS['s3 key']}@planted/home", "--debug"],
            {}, folder,
        ),
    ]  # fmt: skip
    found, codes = [], []
    for words, more, place in commands:
        done = subprocess.run(
            [*RISORIUS, *words], cwd=place,
            env={name: word for name, word in (planted(home.root) | more).items() if word},
            capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
        codes.append(done.returncode)
        said = f"{done.stdout}\n{done.stderr}"
        name = " ".join(words[:2])
        found += [f"output of {name}: {what}" for what, word in WORDS.items() if word in said]
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent != elsewhere]
    for path in files:
        held = held_by(path)
        found += [
            f"{path.relative_to(folder)}: {what}"
            for what, word in WORDS.items()
            if word.encode() in held
        ]
    return {
        "secrets planted": len(WORDS), "commands": len(commands), "exit codes": codes,
        "files searched": len(files), "found": found,
    }  # fmt: skip


def held_by(path: Path) -> bytes:
    """Return a file's bytes, of Parquet and databases also rows as text."""
    data = path.read_bytes()
    if path.suffix == ".parquet":
        import polars as pl

        frame = pl.read_parquet(path, glob=False)
        texts = [
            name for name, kind in frame.schema.items() if kind in (pl.String, pl.List(pl.String))
        ]
        data += frame.select(texts).write_ndjson().encode()
    if data.startswith(b"SQLite format 3"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            data += "\n".join(database.iterdump()).encode(errors="replace")
    return data
