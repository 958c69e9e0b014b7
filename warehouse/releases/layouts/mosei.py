"""Write CMU-MOSEI's pickles: flags, spectrograms and frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from warehouse.releases.layouts import face_arrays, pixels, segments
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.schema import SPLITS

SIZE = 112
_SHARE = 0.2
"""Share of the votes from which an emotion counts as present."""

_POINTS = 435
"""Columns of OpenFace up to the last landmark."""

_WORDS = 300
_HOP, _WINDOW, _MELS = 160, 400, 128
_SPLITS = {"train": "train", "validation": "valid", "test": "test"}


def write(export: Export) -> None:
    """Write ``{train,valid,test}.pkl``, ``Mel_Spect`` and ``Frames_resize``.

    ``label`` flags the emotions with a fifth of the votes or more. ``OpenFace`` and ``text_feat``
    are zeros: no model of ours finds 68 points in them or embeds words; the transcript is under
    ``text``. Segments with fewer than three faces are left out, as the reader needs more than two.
    """
    rows = segments.labelled(export, segments.read(export), soft=True)
    rows = segments.need(export, rows, "audio")
    faces = face_arrays.within(face_arrays.uncounted(export), rows)
    counts = dict(faces.group_by("segment_id").len().iter_rows())
    length = pl.col("segment_id").replace_strict(counts, default=0, return_dtype=pl.Int64)
    rows = export.leave_out(rows.with_columns(length=length), length < 3, "fewer_than_3_faces")
    for name, part in segments.by_split(rows, _SPLITS):
        export.pickle(f"{name}.pkl", [_entry(row) for row in part.iter_rows(named=True)])
    _frames(export, rows, faces)

    def write_mel(name: Any, data: bytes) -> None:
        export.pickle(f"Mel_Spect/{name}.pkl", mel(segments.samples_of(data)))

    segments.media(export, rows, {"audio": write_mel}, key="name")
    export.keep(rows.with_columns(path=pl.format("Frames_resize/{}", "name")), key="segment_id")


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "uttr_id": row["name"],
        "OpenFace": np.zeros((row["length"], _POINTS), np.float32),
        "text_feat": np.zeros((max(len(row["text"].split()), 1), _WORDS), np.float32),
        "label": [int(share >= _SHARE) for share in row["shares"]],
        "text": row["text"],
    }


def _frames(export: Export, rows: pl.DataFrame, faces: pl.DataFrame) -> None:
    names = dict(rows.select("segment_id", "name").iter_rows())
    uses: dict[str, list[tuple[str, int]]] = {}
    for segment, face, place in faces.select("segment_id", "face_id", "place").iter_rows():
        if segment in names:
            uses.setdefault(face, []).append((names[segment], place))
    files = [file for split in SPLITS for file in export.files("data", split)]
    for row in export.stream(files, ["face_id", "image"]):
        for name, place in uses.get(row["face_id"], ()):
            data = pixels.convert(row["image"]["bytes"], "", ".jpg", size=SIZE)
            export.path(f"Frames_resize/{name}/{place + 1:05d}.jpg").write_bytes(data)


def mel(samples: np.ndarray) -> np.ndarray:
    """Return float32[t, 128]: power in mel bands, 25 ms windows each 10 ms.

    Triangular bands over 0 to 8 kHz on the mel scale of O'Shaughnessy (1987).
    """
    padded = np.pad(samples.astype(np.float64) / 32768, (_WINDOW // 2, _WINDOW))
    count = len(samples) // _HOP + 1
    starts = np.arange(count)[:, None] * _HOP + np.arange(_WINDOW)
    power = np.abs(np.fft.rfft(padded[starts] * np.hanning(_WINDOW), n=512)) ** 2
    mels: np.ndarray = (power @ _bands().T).astype(np.float32)
    return mels


def _bands() -> np.ndarray:
    top = 2595 * np.log10(1 + segments.RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, _MELS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(512, 1 / segments.RATE)
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    found: np.ndarray = np.clip(np.minimum(rise, fall), 0, None)
    return found


LAYOUT = Layout(
    "mosei", "pickles, spectrograms and frames of CMU-MOSEI", write, order="basic6:mosei6",
    faces=False,
)  # fmt: skip
