"""Write action units or ARKit blendshapes over time, with the sound."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases.layouts import clip_frames, segments
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe
from warehouse.releases.schema import SPLITS
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX

_FILE = Path(__file__).with_name("arkit.toml")
_RATE = 60.0
"""Rows a second, as rigs and EmoFace read them; ``--fps`` changes it."""


def write(export: Export) -> None:
    """Write ``VALID_CTR/<name>.csv``, ``WAV/<name>.wav``, ``columns.txt``.

    The machine's proxies at the sampled frames are interpolated linearly. ``au`` has the 24 units,
    ``arkit`` the 52 blendshapes; those that no unit drives are 0. At the usual 5 frames a second
    they carry no lip movement. The first three letters of a name are those of the class.
    """
    rows = clip_frames.labelled(export)
    word = pl.col("word").str.slice(0, 3).str.to_lowercase()
    rows = rows.with_columns(
        name=pl.format("{}_{}", word, pl.col("clip_id").map_elements(safe, pl.String))
    ).with_columns(path=pl.format("VALID_CTR/{}.csv", "name"))
    if not rows.is_empty() and "au" not in rows.columns:
        raise ReleaseError(
            "The clips hold no action units", got="no column au", hint="build a new version"
        )
    arkit = export.options.dialect == "arkit"
    names = _arkit()[0] if arkit else [f"AU{unit.number}" for unit in ACTION_UNITS]
    rate = export.options.fps or _RATE
    for file, times, units in rows.select("path", "times", "au").iter_rows():
        found, values = curve(np.array(times), np.array(units, dtype=np.float64), rate=rate)
        if arkit:
            values = _blendshapes(values)
        lines = ((time, *row) for time, row in zip(found.tolist(), values.tolist(), strict=True))
        export.table(file, lines, header=("time_s", *names))
    export.text("columns.txt", names)
    _sounds(export, rows)
    export.keep(rows, key="clip_id")


def curve(times: np.ndarray, units: np.ndarray, *, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Return seconds from the first frame and the units at them.

    Args:
        times: float[n] seconds.
        units: float[n, k].
    """
    start = times - times[0]
    count = int(np.floor(start[-1] * rate + 1e-9)) + 1
    at = np.arange(count) / rate
    filled = np.nan_to_num(units)
    return at, np.stack([np.interp(at, start, column) for column in filled.T], axis=1)


def _blendshapes(units: np.ndarray) -> np.ndarray:
    names, driven = _arkit()
    found = np.zeros((len(units), len(names)))
    for unit, shapes in driven.items():
        for shape in shapes:
            found[:, names.index(shape)] = units[:, AU_INDEX[unit]]
    return np.clip(found, 0, 1)


@cache
def _arkit() -> tuple[list[str], dict[int, list[str]]]:
    data = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return data["names"]["order"], {int(unit): shapes for unit, shapes in data["units"].items()}


def _sounds(export: Export, rows: pl.DataFrame) -> None:
    names = dict(rows.select("clip_id", "name").iter_rows())
    files = [file for split in SPLITS for file in export.files("clips", split)]
    for row in export.stream(files, ["clip_id", "audio"]):
        cell, name = row.get("audio"), names.get(row["clip_id"])
        if name is not None and cell is not None and cell["bytes"]:
            wav = segments.to_wav(segments.samples_of(cell["bytes"]))
            export.path(f"WAV/{name}.wav").write_bytes(wav)


LAYOUT = Layout(
    "curves",
    "action units or blendshapes over time",
    write,
    order="basic7:emoface",
    dialects=("au", "arkit"),
)
