"""The table of events as a pull uses it: little of it is read, and it is written in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import polars as pl

_PART = 5_000
"""Events in a part: enough that a long pull leaves few files, few enough to hold."""

_GONE = pl.col("event") == "deleted"


class Ledger:
    """The events of one project, those known before and those that a pull adds.

    Args:
        known: the ``annotations`` table as it stands at the call, of all projects, in any order,
            with what ``keep`` was given so far.
        keep: appends events to that table.
    """

    def __init__(
        self,
        project_id: int,
        *,
        known: Callable[[], pl.LazyFrame],
        keep: Callable[[pl.DataFrame], None],
    ) -> None:
        self.project_id, self.n_events = project_id, 0
        self._known, self._keep, self._held = known, keep, list[pl.DataFrame]()

    def add(self, events: pl.DataFrame) -> None:
        """Take in new events; they are kept when there are enough for a part."""
        if events.is_empty():
            return
        self.n_events += events.height
        self._held.append(events)
        if sum(frame.height for frame in self._held) >= _PART:
            self.flush()

    def flush(self) -> None:
        """Keep what was taken in."""
        if self._held:
            held, self._held = pl.concat(self._held), []
            self._keep(held)

    def span(self) -> tuple[datetime | None, datetime | None, datetime | None]:
        """Of all events: the first ``created_at``, the last ``updated_at``, the last ``pulled_at``.

        Deleted ones count too: the newest known moment may be that of a vote since deleted.
        """
        ends = pl.col("created_at").min(), pl.col("updated_at").max(), pl.col("pulled_at").max()
        return self._mine().select(*ends).collect().row(0)

    def standing(self) -> pl.DataFrame:
        """``annotation_id, task_id, updated_at, was_cancelled, said`` of what was not deleted.

        Some 40 bytes a row: what an annotation said is told by a hash.
        """
        told = digest(self._mine().with_columns(gone=_GONE), "pulled_at", "gone")
        return _last(told).drop("pulled_at").collect()

    def last_of(self, annotation_ids: Sequence[int]) -> pl.DataFrame:
        """The newest event of each of some annotations that stand, whole."""
        chosen = pl.col("annotation_id").is_in(list(annotation_ids))
        return _last(self._mine().filter(chosen).with_columns(gone=_GONE)).collect()

    def _mine(self) -> pl.LazyFrame:
        every = pl.concat([self._known(), *(frame.lazy() for frame in self._held)])
        return every.filter(pl.col("project_id") == self.project_id)


def digest(events: pl.LazyFrame, *more: str) -> pl.LazyFrame:
    """The columns of ``Ledger.standing``, and ``more``, of some events."""
    # Hashed as text: equal structs of lists need not hash alike. Holds within one process.
    said = pl.col("answer").struct.json_encode().hash(seed=0)
    names = ("annotation_id", "task_id", "updated_at", "was_cancelled")
    return events.select(*names, *more, said=said)


def standing(events: pl.DataFrame, project_id: int) -> pl.DataFrame:
    """The newest event of each annotation of a project that was not deleted, skips included.

    Same order as the view ``standing_annotations``.
    """
    mine = events.lazy().filter(pl.col("project_id") == project_id)
    return _last(mine.with_columns(gone=_GONE)).collect()


def _last(events: pl.LazyFrame) -> pl.LazyFrame:
    return (
        events.sort("updated_at", "pulled_at", "gone", descending=True, nulls_last=True)
        .unique("annotation_id", keep="first", maintain_order=True)
        .filter(~pl.col("gone"))
        .sort("annotation_id")
        .drop("gone")
    )
