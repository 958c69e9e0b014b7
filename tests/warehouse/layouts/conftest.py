"""One small release with boxes, exported to each layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.warehouse.conftest import release_inputs
from tests.warehouse.test_release_clips import sequences
from warehouse import releases
from warehouse.geometry import TEMPLATE, crop_transforms
from warehouse.storage.home import Home

Exported = Callable[..., Path]

PEOPLE = {"ann": 16, "bob": 16, "cid": 12, "dee": 8}


def geometry(rows: pl.DataFrame) -> pl.DataFrame:
    """Place each face in a frame of 640 x 480: the template at half its size."""
    n = rows.height
    points = np.repeat((TEMPLATE / 2 + np.array([200.0, 100.0]))[None], n, axis=0)
    return rows.with_columns(
        bbox=pl.Series([[205.0, 105.0, 100.0, 100.0]] * n),
        keypoints=pl.Series(points.tolist()),
        yaw=pl.Series([float(row % 90) for row in range(n)]),
        pitch=pl.lit(1.0),
        roll=pl.lit(2.0),
        frame=pl.Series(list(range(n)), dtype=pl.Int64),
        frame_size=pl.Series([[640, 480]] * n),
        transform=pl.Series(crop_transforms(points).tolist()),
    )


@pytest.fixture(scope="session")
def layout_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home.at(tmp_path_factory.mktemp("layouts") / "home")
    given = release_inputs(home, PEOPLE)
    clips = sequences(home, given["rows"])
    # The first face of each video has agreeing votes, so the apex there gives the clip a label.
    clips = clips.with_columns(apex_s=pl.col("times").list.get(0))
    releases.build(home, **given | {"rows": geometry(given["rows"])}, sequences=clips)
    return home


@pytest.fixture
def exported(layout_home: Home, tmp_path: Path) -> Exported:
    """Return ``export(layout, **options)``, the folder of a new export."""

    def export(layout: str, **options: Any) -> Path:
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        releases.export(layout_home, name="faces", to=folder, layout=layout, **options)
        return folder

    return export


@pytest.fixture(scope="session")
def released(layout_home: Home) -> pl.DataFrame:
    path = releases.list_releases(layout_home)[0].path
    parts = [
        pl.read_parquet(file, glob=False).with_columns(split=pl.lit(file.name.partition("-")[0]))
        for file in sorted((path / "data").glob("*.parquet"))
    ]
    return pl.concat(parts)


def stated(folder: Path) -> dict[str, Any]:
    """Return ``source.json``."""
    return json.loads((folder / "source.json").read_text())
