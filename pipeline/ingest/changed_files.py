"""A file that changed: its new bytes are a new video, and the old one is retired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from warehouse.ids import sha256_of
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

REASON = "replaced"

_DERIVED = ("faces", "tracks", "ratings", "clips")


@dataclass(frozen=True)
class Before:
    """What the addresses of a batch held when it was registered last."""

    home: Home
    batch: str
    rows: dict[str, list[dict[str, Any]]]

    @classmethod
    def read(cls, home: Home, batch: str) -> Before:
        found: dict[str, list[dict[str, Any]]] = {}
        for row in tables.read(home, "videos", batch=batch).iter_rows(named=True):
            found.setdefault(row["uri"], []).append(row)
        return cls(home, batch, found)

    def clear(self, *, unchanged: set[str], settled: set[str]) -> None:
        """Remove what was said of addresses while their file was away, now that it is back.

        Args:
            unchanged: addresses whose file is the one of the last time.
            settled: addresses that failed as a whole and are not listed any more.
        """
        for uri in unchanged | settled:
            rows = self.rows.get(uri, [])
            if uri in settled or any(row["sha256"] for row in rows):
                for row in rows:
                    if _says_nothing(row):
                        tables.remove(self.home, "videos", part=_part(row), batch=self.batch)

    def retire(self, row: dict[str, Any]) -> int:
        """Drop what the address of ``row`` held before, if that were other bytes.

        The old row stays, dropped with the reason, and so do its faces: people may have voted on
        them, and somebody who leaves must find them. Nothing uses dropped faces. A file that is
        away retires nothing. Copies that were dropped as duplicates of the old video are
        forgotten, so that the next registration of their batch reads them anew.

        Args:
            row: of the table ``videos``, described anew and not written yet.

        Returns:
            how many rows of copies were forgotten in this batch.
        """
        freed = 0
        for old in self.rows.get(row["uri"], []):
            retired = (old["reason"] or "").startswith(f"{REASON}:")
            same = old["video_id"] == row["video_id"]
            if row["sha256"] is None or (same and not retired) or (retired and not same):
                continue
            tables.remove(self.home, "videos", part=_part(old), batch=self.batch)
            if same or old["sha256"] is None:
                continue
            if old["verdict"] != "dropped" or not (old["reason"] or "").startswith("duplicate"):
                tables.remove(self.home, "videos", part=old["video_id"], batch=self.batch)
                _drop(self.home, old, row["video_id"])
                freed += _free(self.home, old)
        return freed

    def as_it_was_found(self, row: dict[str, Any]) -> dict[str, Any]:
        """``row`` with ``searched``: what the search for faces said of it, where that stands."""
        place = {"part": row["video_id"], "batch": self.batch}
        if row["verdict"] == "kept" and "fingerprint" in tables.metadata(
            self.home, "faces", **place
        ):
            for old in self.rows.get(row["uri"], []):
                if old["video_id"] == row["video_id"]:
                    told = {name: old[name] for name in ("verdict", "reason")}
                    return {**row, "searched": told}
        return row


def hand_over(home: Home, video_id: str, *, batch: str, to: str) -> None:
    """Remove what is kept of a retired video where it was: its bytes are there under another
    address, in the batch ``to``, and its faces must not stand twice."""
    for name in _DERIVED if batch != to else ():
        tables.remove(home, name, part=video_id, batch=batch)


def _says_nothing(row: dict[str, Any]) -> bool:
    return row["sha256"] is None and row["verdict"] == "failed"


def _drop(home: Home, old: dict[str, Any], successor: str) -> None:
    reason = f"{REASON}: the file holds other bytes now, {successor}"
    gone = {**old, "verdict": "dropped", "reason": reason}
    for name in ("faces", "clips"):
        rows = tables.read(home, name, batch=old["batch"]).filter(
            pl.col("video_id") == old["video_id"]
        )
        if rows.height:
            dropped = rows.with_columns(verdict=pl.lit("dropped"), reason=pl.lit(REASON))
            # Without its fingerprint, so that the same bytes, come back, are searched again.
            tables.write(home, name, dropped, part=old["video_id"], batch=old["batch"])
    frame = pl.DataFrame([gone], schema=TABLES["videos"].schema)
    tables.write(home, "videos", frame, part=_part(old), batch=old["batch"])


def _free(home: Home, old: dict[str, Any]) -> int:
    """Forget the rows of copies of a retired video; how many were in its own batch."""
    copies = tables.read(home, "videos").filter(
        (pl.col("video_id") == old["video_id"])
        & pl.col("reason").fill_null("").str.starts_with("duplicate")
    )
    for copy in copies.iter_rows(named=True):
        tables.remove(home, "videos", part=_part(copy), batch=copy["batch"])
    return copies.filter(pl.col("batch") == old["batch"]).height


def _part(row: dict[str, Any]) -> str:
    return f"{row['video_id']}.{sha256_of([row['uri'].encode()])[:8]}"
