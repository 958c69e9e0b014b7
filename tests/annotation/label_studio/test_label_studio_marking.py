"""The labelling page shows a marked copy; the stored context stays plain."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import polars as pl

from annotation.label_studio.marking import mark_contexts
from warehouse.storage import media, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES


def test_mark_contexts__box_only_in_the_copy(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    key = media.store(home, "contexts", np.full((448, 448, 3), 50, np.uint8))
    place = {"batch": "day", "part": "v"}
    face = {"face_id": "v-0000-1", "video_id": "v", "batch": "day", "bbox": [100, 100, 100, 100]}
    video = {"video_id": "v", "batch": "day", "width": 640, "height": 480}
    for name, row in (("faces", face), ("videos", video)):
        whole = {column: row.get(column) for column in TABLES[name].columns}
        tables.write(home, name, pl.DataFrame([whole], schema=TABLES[name].schema), **place)
    asked = pl.DataFrame({"face_id": ["v-0000-1", "other"], "context": [key, None]})
    marked = mark_contexts(home, asked)
    assert marked["context"].to_list() == ["marked/v-0000-1.jpg", None]
    assert (media.load(home, key) == 50).all()
    drawn = cv2.imread(str(home.media / "marked/v-0000-1.jpg"))
    # The context is the 300 px square around the face, so the box is its middle third.
    assert drawn[149, 200].tolist() != [50, 50, 50]
    assert drawn[224, 224].tolist() == [50, 50, 50]
    assert mark_contexts(home, asked).equals(marked)
