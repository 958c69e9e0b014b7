"""Write micro-expressions: CAS(ME)3 csv, or the composite set with flow."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import polars as pl

from warehouse.releases.clips import flow_function
from warehouse.releases.layouts import clip_frames, pixels
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe
from warehouse.releases.layouts.unit_labels import with_units
from warehouse.releases.schema import SPLITS

FLOW_SIDE = 28
_STILL = 0.2
"""Range in pixels below which a channel counts as no movement: equal pictures give up to 0.16."""

_COMPOSITE = (
    "dataset", "sub", "filename_o", "label", "apex", "imagename", "sub_filename",
)  # fmt: skip
_CAS3 = (
    "Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion",
    "label_for_7", "label_for_3", "imagename_apex", "imagename_onset", "imagename_apex_offset",
)  # fmt: skip
_THREE = {"happiness": 1, "happy": 1, "surprise": 2}
"""Word to the number of its class among negative 0, positive 1, surprise 2."""


def write(export: Export) -> None:
    """Write the clips that have an onset and an apex.

    ``composite``: ``combined_3_class2_for_optical_flow.csv``, apex faces, 28 px flow from onset to
    apex, and a training and a test folder per subject. ``cas3``: ``cas3.csv`` and the frames under
    ``<subject>/<clip>/color``, numbered as in the source video.
    """
    rows = clip_frames.labelled(export)
    lacking = pl.col("onset").is_null() | pl.col("apex").is_null()
    rows = export.leave_out(rows, lacking, "no_onset_or_apex")
    rows = export.leave_out(rows, pl.col("onset") == pl.col("apex"), "apex_at_onset")
    rows = rows.with_columns(
        sub=pl.col("subject_id").map_elements(safe, pl.String),
        file=pl.col("clip_id").map_elements(safe, pl.String),
    )
    if export.options.dialect == "cas3":
        _cas3(export, rows)
    else:
        _composite(export, rows)


def _cas3(export: Export, rows: pl.DataFrame) -> None:
    rows = rows.with_columns(path=pl.format("{}/{}/color", "sub", "file"))
    numbers = _numbers(export, rows)
    apex = rows.select("clip_id", face_id="apex_face")
    faces = export.faces.select("face_id", "au").join(apex, on="face_id")
    units = dict(with_units(export, faces).select("clip_id", "units").iter_rows())
    lines = []
    for row in rows.iter_rows(named=True):
        frames = numbers[row["clip_id"]]
        last = len(frames) - 1 if row["offset"] is None else row["offset"]
        at = [frames[row["onset"]], frames[row["apex"]], frames[last]]
        images = [f"{row['path']}/{number}.jpg" for number in at]
        active = "+".join(map(str, units.get(row["clip_id"], [])))
        lines.append((
            row["sub"], row["file"], *at, active, None, row["word"], row["number"],
            _THREE.get(row["word"], 0), images[1], images[0], images[2],
        ))  # fmt: skip
    export.table("cas3.csv", lines, header=_CAS3)
    export.notes.append("AU holds units that people coded on the apex face, else proxies from 0.5")
    for row in _frames(export, rows):
        for number, frame in zip(numbers[row["clip_id"]], row["frames"], strict=True):
            suffix = os.path.splitext(frame["path"])[1]
            data = pixels.convert(frame["bytes"], suffix, ".jpg", size=export.options.size)
            export.path(f"{row['folder']}/{number}.jpg").write_bytes(data)
    export.keep(rows, key="clip_id")


def _numbers(export: Export, rows: pl.DataFrame) -> dict[str, list[int]]:
    """Return the frame numbers of each clip; places from 0 if unknown."""
    faces = export.faces
    known = dict(faces.select("face_id", "frame").iter_rows()) if "frame" in faces.columns else {}
    found = {}
    for clip, listed in rows.select("clip_id", "face_ids").iter_rows():
        numbers = [known.get(face) for face in listed]
        unique = None not in numbers and len(set(numbers)) == len(numbers)
        found[clip] = (
            [int(n) for n in numbers if n is not None] if unique else [*range(len(listed))]
        )
    return found


def _composite(export: Export, rows: pl.DataFrame) -> None:
    # Readers append a blank before the suffix of flow pictures.
    rows = rows.with_columns(
        flow=pl.format("{}_{} .png", "sub", "file"),
        image=pl.format("{}_{}.jpg", "sub", "file"),
    ).with_columns(path=pl.format("datasets/combined_datasets_whole/{}", "image"))
    name = safe(str(export.contents["name"]))
    lines = (
        (name, sub, file, number, apex, image, f"{sub}_{file}")
        for sub, file, number, apex, image in rows.select(
            "sub", "file", "number", "apex", "image"
        ).iter_rows()
    )
    export.table("combined_3_class2_for_optical_flow.csv", lines, header=_COMPOSITE)
    named = {row["clip_id"]: row for row in rows.iter_rows(named=True)}
    for row in _frames(export, rows):
        known, frames = named[row["clip_id"]], row["frames"]
        onset, apex = (frames[known[name]]["bytes"] for name in ("onset", "apex"))
        suffix = os.path.splitext(frames[known["apex"]]["path"])[1]
        face = pixels.convert(apex, suffix, ".jpg", size=export.options.size)
        export.path(known["path"]).write_bytes(face)
        picture = flow(pixels.decode(onset), pixels.decode(apex))
        place = f"datasets/STSNet_whole_norm_u_v_os/{known['flow']}"
        export.path(place).write_bytes(pixels.encode(picture, ".png"))
    _leave_one_out(export, rows)
    export.keep(rows, key="clip_id")


def _leave_one_out(export: Export, rows: pl.DataFrame) -> None:
    """Link every flow picture into the training or test set of a subject."""
    subjects = rows["sub"].unique().sort().to_list()
    for left_out in subjects:
        for sub, number, file in rows.select("sub", "number", "flow").iter_rows():
            kind = "u_test" if sub == left_out else "u_train"
            source = export.path(f"datasets/STSNet_whole_norm_u_v_os/{file}")
            target = export.path(f"datasets/three_norm_u_v_os/{left_out}/{kind}/{number}/{file}")
            with suppress(FileNotFoundError):
                target.unlink()
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)


def _frames(export: Export, rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield ``clip_id, frames, folder`` of the clips named."""
    places = dict(rows.select("clip_id", "path").iter_rows())
    files = [file for split in SPLITS for file in export.files("clips", split)]
    for row in export.stream(files, ["clip_id", "frames"]):
        if (folder := places.get(row["clip_id"])) is not None:
            yield row | {"folder": folder}


def flow(onset: np.ndarray, apex: np.ndarray) -> np.ndarray:
    """Return uint8[28, 28, 3]: flow right, flow down and optical strain.

    Farneback's dense flow between uint8[h, w, 3] BGR. Each channel is scaled from its smallest to
    its largest value to 0..255; a channel without any change is 0.
    """
    import cv2

    one, two = (cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in (onset, apex))
    moved = flow_function("farneback")(one, two)
    u, v = moved[..., 0], moved[..., 1]
    u_down, u_right = np.gradient(u)
    v_down, v_right = np.gradient(v)
    # Infinitesimal strain tensor (Shreve et al., 2011, doi:10.1109/FG.2011.5771451).
    shear = (u_down + v_right) / 2
    strain = np.sqrt(u_right**2 + v_down**2 + 2 * shear**2)
    channels = [_scaled(channel) for channel in (u, v, strain)]
    whole = np.stack(channels, axis=2)
    return cv2.resize(whole, (FLOW_SIDE, FLOW_SIDE), interpolation=cv2.INTER_AREA)


def _scaled(channel: np.ndarray) -> np.ndarray:
    low, high = float(channel.min()), float(channel.max())
    if high - low < _STILL:
        return np.zeros(channel.shape, np.uint8)
    scaled: np.ndarray = np.rint(255 * (channel - low) / (high - low)).astype(np.uint8)
    return scaled


LAYOUT = Layout(
    "micro",
    "csv files and flow of micro-expressions",
    write,
    order="micro3:megc",
    orders={"cas3": "basic6:cas3"},
    dialects=("composite", "cas3"),
)
