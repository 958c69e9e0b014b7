"""Place landmarks in aligned crops: five, or 68 of a callable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import polars as pl

from warehouse import plugins
from warehouse.errors import ReleaseError
from warehouse.geometry import CROP_SIZE, TEMPLATE, apply_each
from warehouse.releases.layouts import pixels
from warehouse.releases.layouts.core import Export
from warehouse.releases.layouts.files import array_of
from warehouse.releases.schema import SPLITS

POINTS = 68


def five(rows: pl.DataFrame) -> np.ndarray:
    """Return float64[n, 5, 2]: five keypoints in pixels of a 224 px crop.

    A face without stored keypoints gets those of the template that its crop was aligned to.
    """
    template = np.repeat(TEMPLATE[None], rows.height, axis=0)
    if "transform" not in rows.columns:
        return template
    points, matrices = array_of(rows["keypoints"], 5, 2), array_of(rows["transform"], 2, 3)
    found = apply_each(matrices, points)
    known = ~np.isnan(found).any(axis=(1, 2), keepdims=True)
    placed: np.ndarray = np.where(known, found, template)
    return placed


def of_callable(export: Export, rows: pl.DataFrame) -> dict[str, np.ndarray]:
    """Return 68 points by face, in pixels of a 224 px crop.

    Empty without a callable; a face it does not find is missing.

    Raises:
        ReleaseError: the callable returns another shape.
    """
    if export.options.landmarks is None:
        return {}
    function = plugins.resolve(export.options.landmarks, hint="correct --landmarks")
    wanted = set(rows["face_id"])
    found = {}
    for face, image in _crops(export, wanted):
        points = _checked(function, image)
        if points is not None:
            found[face] = points * (CROP_SIZE / image.shape[0])
    return found


def _crops(export: Export, wanted: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    files = [file for split in SPLITS for file in export.files("data", split)]
    for row in export.stream(files, ["face_id", "image"]):
        if row["face_id"] in wanted:
            yield row["face_id"], pixels.decode(row["image"]["bytes"])[:, :, ::-1]


def _checked(function: Callable[..., Any], image: np.ndarray) -> np.ndarray | None:
    points = function(image)
    if points is None:
        return None
    array = np.asarray(points, dtype=np.float64)
    if array.shape != (POINTS, 2):
        raise ReleaseError(
            "The landmarks are not 68 points",
            got=f"shape {array.shape}",
            hint="return float[68, 2] in pixels of the picture, or None",
        )
    return array
