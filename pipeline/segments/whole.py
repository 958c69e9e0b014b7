"""Write the files of whole pictures and videos that annotators label.

A file is named after its video and ends in an empty box with the fingerprint of what it follows
from, so that a file is written again exactly when something of that changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.faces.box_track import box_tracks, hide_others
from pipeline.segments import media
from pipeline.segments.batch import SegmentOptions, sound_of, visible_tracks
from pipeline.video import reader
from warehouse.errors import MediaError
from warehouse.ids import sha256_of
from warehouse.privacy import tombstones
from warehouse.storage import atomic, mirror, tables, views
from warehouse.storage.home import Home
from warehouse.storage.media import encode

FOLDERS = {"picture": ("pictures", ".jpg"), "video": ("videos", ".mp4")}
"""Kind of item to its media folder and the suffix of its files."""

_METHOD = "whole 1"
_BOX = b"\0\0\0\x10free"
"""Head of an empty mp4 box of 16 bytes; readers of JPEG ignore it too."""


def write_whole(
    home: Home,
    item_kind: str,
    options: SegmentOptions,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, str]:
    """Write the missing and changed files of every picture or video.

    Nothing is written of a video in which an erased person is seen.

    Args:
        item_kind: ``picture`` or ``video``.
        options: ``sound`` and ``blur_bystanders`` count.

    Returns:
        ``video_id`` to the reason of those that could not be written.
    """
    folder, suffix = FOLDERS[item_kind]
    mirror.sync(home.media / folder)
    still = "duration_s = 0" if item_kind == "picture" else "duration_s > 0"
    rows = views.query(
        home,
        f"""SELECT * FROM watchable_videos WHERE {still}
            QUALIFY row_number() OVER (PARTITION BY video_id ORDER BY batch) = 1
            ORDER BY video_id""",
    )
    faces, tracks = tables.read(home, "faces"), tables.read(home, "tracks")
    blocklist = tombstones.blocklist(home)
    failed: dict[str, str] = {}
    for number, row in enumerate(rows.iter_rows(named=True), start=1):
        own = pl.col("video_id") == row["video_id"]
        path = home.media / folder / f"{row['video_id']}{suffix}"
        if blocklist.find_shared(video=row["video_id"]) is not None:
            atomic.remove(path)
            continue
        whole = _Whole(row, faces.filter(own), tracks.filter(own), options)
        if not whole.is_written(path):
            try:
                whole.write(path, item_kind)
            except MediaError as error:
                failed[row["video_id"]] = error.got
        progress(number, rows.height)
    return failed


class _Whole:
    """One picture or video, and what its file is made from."""

    def __init__(
        self,
        row: dict[str, Any],
        faces: pl.DataFrame,
        tracks: pl.DataFrame,
        options: SegmentOptions,
    ) -> None:
        self.row, self.options = row, options
        self.faces = box_tracks(faces)
        self.subjects = visible_tracks(tracks, [row["subject_id"]] if row["subject_id"] else [])
        parts = [_METHOD, str(row["sha256"]), json.dumps([options.sound, options.blur_bystanders])]
        if options.blur_bystanders:
            parts += [faces.select("track_id", "time_s", "bbox").write_ndjson()]
            parts += [json.dumps(sorted(self.subjects))]
        self.tail = _BOX + sha256_of([part.encode() for part in parts])[:8].encode()

    def is_written(self, path: Path) -> bool:
        """Return whether the file is there and follows from the same."""
        if not mirror.ensure_local(path).is_file():
            return False
        with open(path, "rb") as file:
            file.seek(-min(len(self.tail), path.stat().st_size), 2)
            return file.read() == self.tail

    def write(self, path: Path, item_kind: str) -> None:
        """Write the file.

        Raises:
            MediaError: it cannot be decoded.
        """
        data = self._picture() if item_kind == "picture" else self._video(path)
        atomic.write_bytes(path, data + self.tail)

    def _picture(self) -> bytes:
        frame = next(reader.sample(self.row["uri"], fps=1.0))
        return encode(self._hidden(frame.image, frame.time_s), ".jpg")

    def _video(self, path: Path) -> bytes:
        # Beyond the end, so that no frame is lost to rounding.
        cut = media.Cut(path, 0.0, self.row["duration_s"] + 1.0, self.subjects)
        failed = media.cut_videos(
            self.row["uri"], [cut], tracks=self.faces, blur=self.options.blur_bystanders,
            samples=sound_of(self.row) if self.options.sound else None,
        )  # fmt: skip
        if path in failed:
            raise MediaError("The video cannot be cut", got=failed[path], hint="ingest it again")
        return path.read_bytes()

    def _hidden(self, image: np.ndarray, now: float) -> np.ndarray:
        if not self.options.blur_bystanders:
            return image
        return hide_others(image, self.faces, now, subjects=self.subjects)
