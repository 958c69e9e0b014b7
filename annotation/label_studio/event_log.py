"""What stands here of a project's annotations, and the events that bring it up to the server's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from annotation.label_studio.answers import columns_of, storable
from annotation.label_studio.ledger import Ledger, digest, standing
from warehouse.storage.schema import TABLES

__all__ = ["Raters", "Standing", "frame", "standing"]

Row = dict[str, Any]

_SCHEMA = TABLES["annotations"].schema


@dataclass(frozen=True)
class Raters:
    """Pseudonym and kind behind a user id.

    Attributes:
        named: of the accounts that the server lists.
        other: of one that it lists no more.
    """

    named: Mapping[int, tuple[str, str]]
    other: Callable[[int | None], tuple[str, str]]

    def of(self, user_id: int | None) -> tuple[str, str]:
        found = self.named.get(user_id) if user_id is not None else None
        return found or self.other(user_id)


@dataclass
class Standing:
    """The annotations known to stand, brought forward page by page.

    Attributes:
        rows: see ``Ledger.standing``.
        newest: the server's time stamp of the newest vote or edit known.
        pulled_at: stamp of every new event; never before an older one, whatever our clock says,
            because the order of two events at one server time hangs on it.
        label_set: what the project's page asks.
    """

    ledger: Ledger
    pulled_at: datetime
    newest: datetime | None
    label_set: str = "expressions"
    rows: pl.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        self.rows = self.ledger.standing()

    def compare(self, tasks: Sequence[Row], raters: Raters) -> None:
        """Write down what brings some tasks, read whole from the server, up to date here."""
        ids = [task["id"] for task in tasks]
        before = self.rows.filter(pl.col("task_id").is_in(ids))
        there = frame(self._events(tasks, before, raters))
        digests = digest(there.lazy()).collect()
        moved = _moved(before, digests)
        gone = before.join(digests, on="annotation_id", how="anti")["annotation_id"]
        self.ledger.add(there.filter(pl.col("annotation_id").is_in(moved.implode())))
        self._forget(gone)
        self.rows = pl.concat([self.rows.filter(~pl.col("task_id").is_in(ids)), digests])
        newest: Any = there["updated_at"].max()
        self.newest = max(filter(None, (self.newest, newest)), default=None)

    def forget_tasks_not_in(self, there: Iterable[int]) -> None:
        """Write down the end of the annotations of tasks that the server no longer has."""
        kept = pl.DataFrame({"task_id": list(there)}, schema={"task_id": pl.Int64})
        self._forget(self.rows.join(kept, on="task_id", how="anti")["annotation_id"])

    def _forget(self, gone: pl.Series) -> None:
        if gone.is_empty():
            return
        last = self.ledger.last_of(gone.to_list())
        # The server does not say when it was deleted; updated_at stays the last vote's.
        stamp = pl.lit(self.pulled_at).cast(_SCHEMA["pulled_at"])
        self.ledger.add(last.with_columns(event=pl.lit("deleted"), pulled_at=stamp))
        self.rows = self.rows.filter(~pl.col("annotation_id").is_in(gone.implode()))

    def _events(self, tasks: Sequence[Row], before: pl.DataFrame, raters: Raters) -> list[Row]:
        known = set(before["annotation_id"])
        found = [(task, each) for task in tasks for each in task.get("annotations") or []]
        # Who cast a vote is asked of the table once the account is gone.
        orphans = [
            each["id"]
            for _, each in found
            if each["id"] in known and each.get("completed_by") not in raters.named
        ]
        last = self.ledger.last_of(orphans) if orphans else frame([])
        who = last.select("rater_id", "rater_kind").rows()
        names = dict(zip(last["annotation_id"], who, strict=True))
        return [
            self._event(
                task, each, raters,
                rater=names.get(each["id"]) or raters.of(each.get("completed_by")),
                known=each["id"] in known,
            )
            for task, each in found
        ]  # fmt: skip

    def _event(
        self, task: Row, annotation: Row, raters: Raters, *, rater: tuple[str, str], known: bool
    ) -> Row:
        data = task.get("data") or {}
        face = data.get("face_id")
        cancelled = bool(annotation.get("was_cancelled"))
        created, updated = (_moment(annotation.get(name)) for name in ("created_at", "updated_at"))
        said = columns_of(
            annotation.get("result"), label_set=self.label_set, was_cancelled=cancelled
        )
        return {
            "annotation_id": annotation["id"],
            "task_id": task["id"],
            "project_id": self.ledger.project_id,
            "face_id": storable(face) if isinstance(face, str) else None,
            "rater_id": rater[0],
            "rater_kind": rater[1],
            "event": "updated" if known else "created",
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
            "edited_by": _editor(annotation, raters),
        }


def frame(events: list[Row]) -> pl.DataFrame:
    """Events as rows of ``annotations``."""
    return pl.DataFrame(events, schema=_SCHEMA, orient="row")


def _moved(before: pl.DataFrame, there: pl.DataFrame) -> pl.Series:
    """Ids of the annotations that are new, or not what they were."""
    pairs = there.join(before, on="annotation_id", how="left", suffix="_before")
    changed = [
        pl.col(name).ne_missing(pl.col(f"{name}_before"))
        for name in ("task_id", "updated_at", "was_cancelled", "said")
    ]
    return pairs.filter(pl.any_horizontal(changed))["annotation_id"]


def _editor(annotation: Row, raters: Raters) -> str | None:
    """The pseudonym of who wrote it last, if that is another account than the one it is told by.

    The server keeps only the last hand: an edit by another that the owner edits again before the
    next pull leaves no trace. It knows no hand at all behind imported rows.
    """
    told, hand = annotation.get("completed_by"), annotation.get("updated_by")
    return None if hand is None or hand == told else raters.of(hand)[0]


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
