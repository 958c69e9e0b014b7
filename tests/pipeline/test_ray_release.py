"""The same votes and videos give the same release, file by file, whichever engine did the work."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.pipeline.ray_cluster import ABSENT, cluster
from warehouse import tables
from warehouse.home import Home
from warehouse.schema import TABLES
from warehouse.vocabulary import EXPRESSIONS

RATERS = ("person-a", "person-b", "person-c")

RUN = """
import sys
from pipeline import runs, samples
from pipeline.demo import BATCH, _enlist
from warehouse.home import Home

home = Home.at(sys.argv[1])
for job in sys.argv[2:]:
    if job == "ingest":
        _enlist(home)
        runs.add_batch(home, BATCH)
    runs.materialize(home, job, batch=BATCH if job == "ingest" else None)
"""


def run(home: Home, *jobs: str, env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(home.root), *jobs],
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr


def vote(home: Home) -> None:
    """Three people's votes on every kept face, drawn by its name."""
    kept = tables.read(home, "faces").filter(pl.col("verdict") == "kept").sort("face_id")
    rows = []
    for number, face_id in enumerate(kept["face_id"]):
        dice = np.random.default_rng(number)
        for place, rater in enumerate(RATERS):
            rows.append(
                {
                    "annotation_id": 10 * number + place,
                    "task_id": number,
                    "project_id": 1,
                    "face_id": face_id,
                    "rater_id": rater,
                    "rater_kind": "person",
                    "event": "created",
                    "answer": {"validity": "face", "expressions": [str(dice.choice(EXPRESSIONS))]},
                    "was_cancelled": False,
                    "saw_prediction": False,
                    "label_set": "expressions",
                }
            )
    moment = pl.lit("2026-01-01").str.to_datetime(time_unit="us", time_zone="UTC")
    frame = pl.DataFrame(rows, schema=TABLES["annotations"].schema)
    frame = frame.with_columns(created_at=moment, updated_at=moment, pulled_at=moment)
    tables.write(home, "annotations", frame, part="votes")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(ABSENT is not None, reason=ABSENT or "")
def test_ray_and_local_processes_make_the_same_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    homes = {name: Home.at(tmp_path / name) for name in ("local", "ray")}
    homes["local"].salt()
    homes["ray"].root.mkdir()
    shutil.copy(homes["local"].root / "salt", homes["ray"].root / "salt")
    common = {**os.environ, "RISORIUS_SYNTH_FACES": "4"}
    rest = ("weigh", "audit", "synthesize", "cut_release")
    with cluster(1, 1) as nodes:
        remote = {**common, "RISORIUS_ENGINE": "ray", "RAY_ADDRESS": nodes.address}
        for name, env in (("local", common), ("ray", remote)):
            run(homes[name], "ingest", env=env)
            vote(homes[name])
            run(homes[name], *rest, env=env)
    manifests = {
        name: json.loads((home.releases / "faces" / "v1" / "manifest.json").read_text())
        for name, home in homes.items()
    }
    assert manifests["ray"]["files"] == manifests["local"]["files"]
    assert manifests["ray"] == manifests["local"]
    assert tables.read(homes["ray"], "synthetic_faces").height == 4
