"""Write boxes and classes for FER-YOLO, YOLO, COCO and VOC readers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import polars as pl

from warehouse.errors import ReleaseError
from warehouse.geometry import CROP_SIZE, boxes_in_crops
from warehouse.releases.layouts import landmarks, pixels
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import array_of, safe
from warehouse.releases.schema import SPLITS

_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_FOLDER = "JPEGImages"
_BOXES = ("x", "y", "w", "h")
_COLUMNS = (
    "path", "face_id", "name", "split", "word", "place", *_BOXES, "width", "height", "points",
)  # fmt: skip
"""What a picture's lines and entries need."""


def write(export: Export) -> None:
    """Write one picture per frame with a box per labelled face.

    With a reader of frames the pictures are whole frames; a frame in which a face has no class is
    left out, because a detector would learn that face as background. Without one each aligned crop
    is a picture, with the box of its face carried over.
    """
    rows = _boxed(export)
    dialect = export.options.dialect or ""
    if dialect == "fer-yolo" and any(c.isspace() or c == "," for c in export.absolute("")):
        raise ReleaseError(
            "The reader of fer-yolo splits paths at blanks and commas",
            got=export.absolute(""),
            hint="export to a folder without them",
        )
    folder = "images" if dialect == "yolo" else _FOLDER
    suffix = pl.lit(".jpg") if export.frames is not None else pl.col("suffix")
    if dialect == "yolo":
        names = pl.col("split").replace_strict(_SPLITS, return_dtype=pl.String)
        rows = rows.with_columns(path=pl.format("images/{}/{}{}", names, "name", suffix))
    else:
        rows = rows.with_columns(path=pl.format(folder + "/{}{}", "name", suffix))
    place = pl.col("number") - export.classes.base
    rows = _write_pictures(export, rows.with_columns(place=place))
    {"fer-yolo": _fer_yolo, "yolo": _yolo, "coco": _coco, "voc": _voc}[dialect](export, rows)
    export.write_folds(rows)


def _boxed(export: Export) -> pl.DataFrame:
    """Return labelled rows placed in their pictures.

    Adds ``name, x, y, w, h, width, height, points``.
    """
    faces = export.faces
    if "bbox" not in faces.columns:
        raise ReleaseError(
            "This version holds no boxes",
            got="it was built by an earlier Risorius",
            hint="build a new version with `risorius release create`",
        )
    unknown = pl.col("bbox").is_null() | pl.col("transform").is_null()
    unknown |= pl.col("frame_size").is_null() | pl.col("frame").is_null()
    judged = export.classes.label(export.leave_out(faces, unknown, "no_box"))
    if export.frames is not None:
        blind = pl.col("left_out").is_not_null().any().over("video_id", "frame")
        reason = pl.coalesce("left_out", pl.when(blind).then(pl.lit("unlabelled_face_in_frame")))
        rows = export.leave_out(judged, reason, None)
        video = pl.col("video_id").map_elements(safe, pl.String)
        named = rows.with_columns(name=pl.format("{}_{}", video, "frame"))
        return _in_frames(named)
    rows = export.leave_out(judged, pl.col("left_out"), None)
    return _in_crops(rows.with_columns(name=pl.col("stem")), export.options.size or CROP_SIZE)


def _in_frames(rows: pl.DataFrame) -> pl.DataFrame:
    width, height = (pl.col("frame_size").arr.get(place) for place in (0, 1))
    box = [pl.col("bbox").arr.get(place).cast(pl.Float64).alias(name)
           for place, name in enumerate(_BOXES)]  # fmt: skip
    return rows.with_columns(*box, width=width, height=height, points=pl.col("keypoints"))


def _in_crops(rows: pl.DataFrame, side: int) -> pl.DataFrame:
    scale = side / CROP_SIZE
    matrices, boxes = array_of(rows["transform"], 2, 3), array_of(rows["bbox"], 4)
    placed = scale * boxes_in_crops(matrices, boxes)
    return rows.with_columns(
        *(pl.Series(name, placed[:, place]) for place, name in enumerate(_BOXES)),
        width=pl.lit(side, pl.Int64),
        height=pl.lit(side, pl.Int64),
        points=pl.Series(scale * landmarks.five(rows)),
    )


def _write_pictures(export: Export, rows: pl.DataFrame) -> pl.DataFrame:
    """Write the pictures; return the rows that have one, boxes clipped."""
    if export.frames is None:
        export.pictures(rows, size=export.options.size)
        return _clipped(rows)
    paths = {
        (video, frame): path
        for video, frame, path in rows.select("video_id", "frame", "path").iter_rows()
    }
    seen: set[tuple[str, int]] = set()
    for video, frame, image in export.frames(rows.select("video_id", "frame", "face_id")):
        data = pixels.encode(np.ascontiguousarray(image[:, :, ::-1]), ".jpg")
        export.path(paths[video, frame]).write_bytes(data)
        seen.add((video, frame))
    found = pl.Series(
        [key in seen for key in rows.select("video_id", "frame").iter_rows()], dtype=pl.Boolean
    )
    rows = export.leave_out(rows.with_columns(seen=found), ~pl.col("seen"), "frame_unavailable")
    export.keep(rows)
    return _clipped(rows)


def _clipped(rows: pl.DataFrame) -> pl.DataFrame:
    x, y, w, h, width, height = (pl.col(name) for name in (*_BOXES, "width", "height"))
    left, top = x.clip(0, width - 1), y.clip(0, height - 1)
    return rows.with_columns(
        x=left, y=top, w=(x + w).clip(left + 1, width) - left, h=(y + h).clip(top + 1, height) - top
    )


def _by_picture(rows: pl.DataFrame) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each picture, in the order of the pictures."""
    used = rows.select(_COLUMNS).sort("path", "face_id")
    for _, faces in groupby(used.iter_rows(named=True), itemgetter("path")):
        yield list(faces)


def _fer_yolo(export: Export, rows: pl.DataFrame) -> None:
    """Write ``2007_{train,val}.txt``: absolute paths and integer boxes."""
    export.text("classes.txt", export.classes.words)
    sets = export.sets(rows)
    for name, wanted in (("train", "train"), ("val", "test")):
        lines = []
        for faces in _by_picture(sets.filter(pl.col("set") == wanted)):
            boxes = " ".join(",".join(map(str, _corners(face))) for face in faces)
            lines.append(f"{export.absolute(faces[0]['path'])} {boxes}")
        export.text(f"2007_{name}.txt", lines)


def _corners(face: dict[str, Any]) -> tuple[int, ...]:
    x, y = round(face["x"]), round(face["y"])
    right, bottom = round(face["x"] + face["w"]), round(face["y"] + face["h"])
    return x, y, max(right, x + 1), max(bottom, y + 1), face["place"]


def _yolo(export: Export, rows: pl.DataFrame) -> None:
    """Write ``labels/``: class, relative centre and size; ``data.yaml``."""
    for faces in _by_picture(rows):
        lines = (
            f"{face['place']} {(face['x'] + face['w'] / 2) / face['width']:.6f} "
            f"{(face['y'] + face['h'] / 2) / face['height']:.6f} "
            f"{face['w'] / face['width']:.6f} {face['h'] / face['height']:.6f}"
            for face in faces
        )
        path = faces[0]["path"].replace("images/", "labels/", 1).rpartition(".")[0]
        export.text(f"{path}.txt", lines)
    present = {_SPLITS[split] for split in rows["split"].unique()}
    sets = {name: f"images/{name}" for name in _SPLITS.values() if name in present}
    names = dict(enumerate(export.classes.words))
    export.yaml("data.yaml", {"path": export.absolute("").rstrip("/"), **sets, "names": names})


def _coco(export: Export, rows: pl.DataFrame) -> None:
    """Write ``annotations/instances_<split>.json`` with five keypoints."""
    categories = [
        {"id": place + 1, "name": word, "supercategory": "face",
         "keypoints": ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"],
         "skeleton": []}
        for place, word in enumerate(export.classes.words)
    ]  # fmt: skip
    for split in SPLITS:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        part = rows.filter(pl.col("split") == split)
        if part.is_empty():
            continue
        part = part.with_columns(pl.col(*_BOXES).round(2), points=_rounded(part["points"]))
        for number, faces in enumerate(_by_picture(part), start=1):
            first = faces[0]
            images.append(
                {"id": number, "file_name": first["path"].rpartition("/")[2],
                 "width": first["width"], "height": first["height"]}
            )  # fmt: skip
            for face in faces:
                box = [face[name] for name in _BOXES]
                points = [value for x, y in face["points"] or [] for value in (x, y, 2)]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number,
                     "category_id": face["place"] + 1, "bbox": box,
                     "area": round(box[2] * box[3], 2), "iscrowd": 0, "segmentation": [],
                     "keypoints": points, "num_keypoints": len(points) // 3,
                     "face_id": face["face_id"]}
                )  # fmt: skip
        export.json(
            f"annotations/instances_{_SPLITS[split]}.json",
            {"info": {"description": str(export.contents["name"])}, "licenses": [],
             "images": images, "annotations": annotations, "categories": categories},
        )  # fmt: skip


def _rounded(points: pl.Series) -> pl.Series:
    return pl.Series(array_of(points, 5, 2).round(2)).set(points.is_null(), None)


def _voc(export: Export, rows: pl.DataFrame) -> None:
    """Write ``Annotations/<name>.xml``, counted from 1, and the sets."""
    names: dict[str, list[str]] = {name: [] for name in _SPLITS.values()}
    for faces in _by_picture(rows):
        first = faces[0]
        names[_SPLITS[first["split"]]].append(first["name"])
        export.text(f"Annotations/{first['name']}.xml", _xml(faces))
    for name, listed in names.items():
        export.text(f"ImageSets/Main/{name}.txt", listed)


def _xml(faces: list[dict[str, Any]]) -> Iterator[str]:
    first = faces[0]
    yield f"<annotation><folder>{_FOLDER}</folder>"
    yield f"<filename>{escape(first['path'].rpartition('/')[2])}</filename>"
    yield f"<size><width>{first['width']}</width><height>{first['height']}</height>"
    yield "<depth>3</depth></size><segmented>0</segmented>"
    for face in faces:
        x, y, right, bottom, _ = _corners(face)
        yield f"<object><name>{escape(face['word'])}</name><pose>Unspecified</pose>"
        yield "<truncated>0</truncated><difficult>0</difficult>"
        yield f"<bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
        yield f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
    yield "</annotation>"


LAYOUT = Layout(
    "boxes",
    "pictures with a box and a class per face",
    write,
    order="basic7:alpha7",
    dialects=("coco", "fer-yolo", "yolo", "voc"),
)
