"""What stands here of a project's annotations, and the events that bring it up to the server's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from annotation.studio.answers import columns_of
from warehouse.schema import TABLES

Row = dict[str, Any]
Rater = Callable[[int | None, Row | None], tuple[str, str]]
"""Pseudonym and kind behind a user id, given the annotation's last known event if there is one."""

_SCHEMA = TABLES["annotations"].schema


def standing(events: pl.DataFrame, project_id: int) -> pl.DataFrame:
    """The newest event of each annotation of a project that was not deleted, skips included.

    Same order as the view ``standing_annotations``.
    """
    return (
        events.filter(pl.col("project_id") == project_id)
        .with_columns(gone=pl.col("event") == "deleted")
        .sort("updated_at", "pulled_at", "gone", descending=True, nulls_last=True)
        .unique("annotation_id", keep="first", maintain_order=True)
        .filter(~pl.col("gone"))
        .drop("gone")
        .sort("annotation_id")
    )


@dataclass
class Standing:
    """The annotations known to stand, brought forward task by task.

    Attributes:
        rows: annotation id to its newest event.
        newest: the server's time stamp of the newest vote or edit known.
        pulled_at: stamp of every new event; never before an older one, whatever our clock says,
            because the order of two events at one server time hangs on it.
        label_set: what the project's page asks.
    """

    project_id: int
    pulled_at: datetime
    rows: dict[int, Row]
    newest: datetime | None
    label_set: str = "expressions"
    _of_task: dict[int, set[int]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, known: pl.DataFrame, project_id: int, now: datetime, *, label_set: str = "expressions"
    ) -> Standing:
        mine = known.filter(pl.col("project_id") == project_id)
        rows = {
            row["annotation_id"]: row for row in standing(mine, project_id).iter_rows(named=True)
        }
        last: Any = mine["pulled_at"].max()
        # Deleted ones count too: the newest known moment may be that of a vote since deleted.
        newest: Any = mine["updated_at"].max()
        made = cls(project_id, max(now, last) if last else now, rows, newest, label_set)
        for number, row in rows.items():
            made._of_task.setdefault(row["task_id"], set()).add(number)
        return made

    def compare(self, task: Row, rater: Rater) -> list[Row]:
        """Events that bring one task, read whole from the server, up to date here."""
        here = set(self._of_task.get(task["id"], ()))
        events = []
        for annotation in task.get("annotations") or []:
            before = self.rows.get(annotation["id"])
            here.discard(annotation["id"])
            event = self._event(task, annotation, before, rater)
            if before is None or _moved(before, event):
                self.rows[event["annotation_id"]] = event
                self._of_task.setdefault(task["id"], set()).add(event["annotation_id"])
                events.append(event)
        return events + self._forget(sorted(here))

    def forget_tasks_not_in(self, there: Iterable[int]) -> list[Row]:
        """Events for the annotations of tasks that the server no longer has."""
        gone = self._of_task.keys() - set(there)
        return self._forget(sorted(number for task in gone for number in self._of_task[task]))

    def _forget(self, numbers: list[int]) -> list[Row]:
        events = []
        for number in numbers:
            last = self.rows.pop(number)
            self._of_task[last["task_id"]].discard(number)
            # The server does not say when it was deleted; updated_at stays the last vote's.
            events.append({**last, "event": "deleted", "pulled_at": self.pulled_at})
        return events

    def _event(self, task: Row, annotation: Row, before: Row | None, rater: Rater) -> Row:
        data = task.get("data") or {}
        face = data.get("face_id")
        rater_id, rater_kind = rater(annotation.get("completed_by"), before)
        cancelled = bool(annotation.get("was_cancelled"))
        created, updated = (_moment(annotation.get(name)) for name in ("created_at", "updated_at"))
        if updated is not None and (self.newest is None or updated > self.newest):
            self.newest = updated
        said = columns_of(
            annotation.get("result"), label_set=self.label_set, was_cancelled=cancelled
        )
        return {
            "annotation_id": annotation["id"],
            "task_id": task["id"],
            "project_id": self.project_id,
            "face_id": face if isinstance(face, str) else None,
            "rater_id": rater_id,
            "rater_kind": rater_kind,
            "event": "created" if before is None else "updated",
            **said,
            "lead_time_s": annotation.get("lead_time"),
            "was_cancelled": cancelled,
            # A task that was pushed with a prediction showed it; the server's own word for it is
            # given only by the page that took the prediction over.
            "saw_prediction": annotation.get("parent_prediction") is not None
            or bool(data.get("prediction")),
            "created_at": created,
            "updated_at": updated,
            "pulled_at": self.pulled_at,
            "edited_by": _editor(annotation, rater),
        }


def frame(events: list[Row]) -> pl.DataFrame:
    """Events as rows of ``annotations``."""
    return pl.DataFrame(events, schema=_SCHEMA, orient="row")


def _moved(before: Row, after: Row) -> bool:
    return any(before[name] != after[name] for name in ("updated_at", "was_cancelled", "answer"))


def _editor(annotation: Row, rater: Rater) -> str | None:
    """The pseudonym of who wrote it last, if that is another account than the one it is told by.

    The server keeps only the last hand: an edit by another that the owner edits again before the
    next pull leaves no trace. It knows no hand at all behind imported rows.
    """
    told, hand = annotation.get("completed_by"), annotation.get("updated_by")
    return None if hand is None or hand == told else rater(hand, None)[0]


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
