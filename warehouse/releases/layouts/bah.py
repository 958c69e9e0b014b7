"""Write frames, spans and folds of BAH: ambivalence and hesitancy."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases.layouts import face_arrays, fold_txt, segments
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe

SIZE = 256
_LABEL_SET, _PRESENT = "ambivalence", "present"
_FOLDER = "features/compacted_48"
_SPLITS = {"train": "train", "validation": "val", "test": "test"}


def write(export: Export) -> None:
    """Write the lists, ``video.npy`` and labels per frame, and the spans.

    Frames are the released faces within a segment, not every frame of its video; their seconds,
    from the start of the segment, are in ``frames.csv``. A frame is 1 if at least half of the
    raters who marked spans in the segment have one that covers it; shares are in
    ``EXPR_share.npy``. A segment with spans but without a label of its own is ``With A-H``.

    Raises:
        ReleaseError: no person marked ambivalence.
    """
    spans = segments.config(export, "spans").filter(
        pl.col("item_kind") == "segment", pl.col("label_set") == _LABEL_SET,
        pl.col("label") == _PRESENT,
    )  # fmt: skip
    found = segments.read(export)
    words = segments.words_of(found, export.classes)
    if spans.is_empty() and not words:
        raise ReleaseError(
            "No label and no span of ambivalence is in this version",
            got="layout bah",
            hint="ask for the label set ambivalence and build a new version",
        )
    marked = dict.fromkeys(spans["item_id"], export.classes.spelling[_PRESENT])
    number = pl.col("segment_id").replace_strict(
        {segment: export.classes.numbers[word] for segment, word in (marked | words).items()},
        default=None, return_dtype=pl.Int64,
    )  # fmt: skip
    rows = found.unique("segment_id").sort("segment_id").with_columns(number=number)
    rows = export.leave_out(rows, pl.col("number").is_null(), "no_label_and_no_spans")
    rows = segments.need(export, rows, "video")
    subject = pl.col("subject_id").map_elements(safe, pl.String)
    rows = rows.with_columns(
        trial=pl.col("name"), path=pl.format("Videos/{}/{}.mp4", subject, "name")
    )
    fold_txt.lists(export, rows)
    _frames(export, rows, spans)
    segments.media(export, rows, {"video": segments.copy_writer(export, "{}")})
    export.keep(rows, key="segment_id")


def _frames(export: Export, rows: pl.DataFrame, spans: pl.DataFrame) -> None:
    names = dict(rows.select("segment_id", "trial").iter_rows())
    faces = face_arrays.within(face_arrays.uncounted(export), rows)
    face_arrays.write(
        export, faces, lambda segment: f"{_FOLDER}/{names[segment]}/video.npy", size=SIZE, bgr=False
    )
    every = face_arrays.frames_of(faces)
    yaml: dict[str, Any] = {}
    info: dict[str, Any] = {
        name: {"trial": [], "length": [], "data_folder": "compacted_48"}
        for name in _SPLITS.values()
    }
    for segment, start, split in rows.select("segment_id", "start_s", "split").iter_rows():
        trial, frames = names[segment], every.get(segment, [])
        mine = spans.filter(pl.col("item_id") == segment)
        shares = shares_of(mine, np.array([frame["time_s"] - start for frame in frames]))
        hard = (shares >= 0.5).astype(np.float32)
        np.save(export.path(f"{_FOLDER}/{trial}/EXPR_continuous_label.npy"), hard)
        np.save(export.path(f"{_FOLDER}/{trial}/EXPR_share.npy"), shares.astype(np.float32))
        export.table(
            f"{_FOLDER}/{trial}/frames.csv",
            ((place, frame["time_s"] - start) for place, frame in enumerate(frames)),
            header=("frame", "time_s"),
        )
        export.table(
            f"{_FOLDER}/{trial}/spans.csv",
            ((row["start_s"], row["end_s"], row["label"], row["rater_id"],
              ";".join(row["cues"] or ())) for row in mine.iter_rows(named=True)),
            header=("start_s", "end_s", "label", "rater_id", "cues"),
        )  # fmt: skip
        yaml[trial] = {"frame_annotation": [[n, int(one)] for n, one in enumerate(hard)]}
        listed = info[_SPLITS[split]]
        listed["trial"].append(trial)
        listed["length"].append(len(frames))
    export.yaml("video_annotation.yaml", yaml)
    export.pickle("dataset_info.pkl", info)


def shares_of(spans: pl.DataFrame, times: np.ndarray) -> np.ndarray:
    """Return the share of the raters whose spans cover each time."""
    raters = spans["rater_id"].unique().sort().to_list()
    covered = np.zeros((max(len(raters), 1), len(times)), dtype=bool)
    for start, end, rater in spans.select("start_s", "end_s", "rater_id").iter_rows():
        covered[raters.index(rater)] |= (times >= start) & (times <= end)
    share: np.ndarray = covered.mean(axis=0)
    return share


LAYOUT = Layout(
    "bah", "frames, spans and folds of ambivalence", write, order="ambivalence:bah", faces=False
)
