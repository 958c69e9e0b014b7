"""Pull annotations of a project as events: created, updated, deleted.

The ``annotations`` table is append-only. A pull compares the server with the annotations that
stand in the table and appends an event per difference, so nothing is lost and nothing doubled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from annotation.label_studio.answers import columns_of, storable
from annotation.label_studio.client import LabelStudioClient
from annotation.label_studio.item_answers import item_columns
from warehouse.errors import StudioError
from warehouse.storage.schema import TABLES

Row = dict[str, Any]
RaterOf = Callable[[int, str], tuple[str, str]]
"""User id and e-mail (empty if the account was deleted) to pseudonym and rater kind."""

_SCHEMA = TABLES["annotations"].schema
_IS_DELETED = pl.col("event") == "deleted"
_INCLUDE = (
    "id,data,updated_at,annotations,result,completed_by,updated_by,lead_time,was_cancelled,"
    "parent_prediction,created_at"
)
_OVERLAP = timedelta(seconds=60)
"""Read again before the newest known time: a vote is stamped before it is stored."""

_PASSES = 5
_WHOLE_PASS = 2
"""Two passes over changed tasks, then over all, then two over what changed meanwhile."""

_PART = 5_000
"""Events per part: few files after a long pull, few events in memory."""


@dataclass(frozen=True)
class PullResult:
    """Outcome of a pull.

    Attributes:
        n_events: new events.
        n_on_server: annotations on the server, skips included, as its database counts them.
        n_standing: annotations that stand in the table, new events included.
    """

    n_events: int
    n_on_server: int
    n_standing: int

    @property
    def complete(self) -> bool:
        """Return whether table and server agree."""
        return self.n_on_server == self.n_standing


def pull(
    client: LabelStudioClient,
    project_id: int,
    *,
    known: Callable[[], pl.LazyFrame],
    append: Callable[[pl.DataFrame], None],
    rater_of: RaterOf,
    now: datetime,
    whole: bool = False,
    label_set: str = "expressions",
    page_size: int = 500,
) -> PullResult:
    """Append the events since the last pull.

    Changed tasks are read. After each pass the server's database counts its annotations. If it
    disagrees with the table, deleted tasks are searched, then everything is read again; a
    remaining difference shows in ``PullResult.complete``. Memory: one page of tasks, one part
    of events, and about 40 bytes per standing annotation.

    Tasks are read by rising id, so the events of an interrupted pull do not tell how far it
    got: the next pull must be ``whole``.

    Args:
        known: returns the ``annotations`` table of all projects as it stands at the call.
        append: appends events to that table.
        now: our clock; stamps ``pulled_at`` and has no influence on what is read.
        whole: read every task.
        label_set: label set of the project's page.
        page_size: tasks per request.

    Raises:
        StudioError: the server is unreachable or rejects the token, or the project is missing
            or another one.
    """
    events = EventLog(project_id, known=known, append=append, now=now, label_set=label_set)
    _check_same_project(client, project_id, events.oldest)
    emails = client.user_emails()
    names = {number: rater_of(number, email) for number, email in emails.items()}
    since, n_on_server = None if whole else events.newest, 0
    for number in range(_PASSES):
        begun, changed_at = time.monotonic(), client.last_change(project_id)
        from_when = since - _OVERLAP if since else None
        seen: set[int] = set()
        for page in client.task_pages(
            project_id, include=_INCLUDE, since=from_when, page_size=page_size
        ):
            seen.update(task["id"] for task in page)
            events.compare(page, names, rater_of)
        if since is None or number > 0:
            events.delete_missing_tasks(seen if since is None else _task_ids(client, project_id))
        _, n_on_server = client.counts(project_id)
        # A slow pass may have missed an edit of a page it had already read.
        quick = time.monotonic() - begun < _OVERLAP.total_seconds() / 2
        if quick and n_on_server == events.standing.height:
            break
        whole_next = changed_at is None or number + 1 == _WHOLE_PASS
        since = None if whole_next else datetime.fromisoformat(changed_at or "")
    events.flush()
    return PullResult(events.n_events, n_on_server, n_standing=events.standing.height)


class EventLog:
    """The events of one project.

    Those in the table and those that a pull adds.

    Args:
        known, append, now, label_set: as in ``pull``.

    Attributes:
        oldest: ``created_at`` of the first vote, deleted ones included.
        newest: ``updated_at`` of the last known vote or edit, deleted ones included.
        pulled_at: stamp of new events. Never before an older one, whatever our clock says,
            because it orders two events of one server time.
        standing: ``annotation_id, task_id, updated_at, was_cancelled, said`` of annotations
            that are not deleted; ``said`` is a hash of the answer.
        n_events: number of new events.
    """

    def __init__(
        self,
        project_id: int,
        *,
        known: Callable[[], pl.LazyFrame],
        append: Callable[[pl.DataFrame], None],
        now: datetime,
        label_set: str = "expressions",
    ) -> None:
        self.project_id, self.label_set, self.n_events = project_id, label_set, 0
        self._known, self._append, self._pending = known, append, list[pl.DataFrame]()
        span = self._own_events().select(
            pl.col("created_at").min(), pl.col("updated_at").max(), pl.col("pulled_at").max()
        )
        self.oldest, self.newest, last = span.collect().row(0)
        self.pulled_at: datetime = max(now, last) if last else now
        hashed = _digest(self._own_events().with_columns(gone=_IS_DELETED), "pulled_at", "gone")
        self.standing = _latest(hashed).drop("pulled_at").collect()

    def compare(
        self, tasks: Sequence[Row], names: dict[int, tuple[str, str]], rater_of: RaterOf
    ) -> None:
        """Add events for the differences in some tasks, which are read whole.

        Args:
            names: user id to pseudonym and kind of the accounts that the server lists.
        """
        ids = [task["id"] for task in tasks]
        before = self.standing.filter(pl.col("task_id").is_in(ids))
        there = frame(self._events(tasks, before, names, rater_of))
        digests = _digest(there.lazy()).collect()
        changed = _changed(before, digests)
        gone = before.join(digests, on="annotation_id", how="anti")["annotation_id"]
        self._add(there.filter(pl.col("annotation_id").is_in(changed.implode())))
        self._delete(gone)
        self.standing = pl.concat([self.standing.filter(~pl.col("task_id").is_in(ids)), digests])
        newest: Any = there["updated_at"].max()
        self.newest = max(filter(None, (self.newest, newest)), default=None)

    def delete_missing_tasks(self, task_ids: Iterable[int]) -> None:
        """Add deletions of the annotations whose task is not among ``task_ids``."""
        there = pl.DataFrame({"task_id": list(task_ids)}, schema={"task_id": pl.Int64})
        self._delete(self.standing.join(there, on="task_id", how="anti")["annotation_id"])

    def flush(self) -> None:
        """Append the pending events to the table."""
        if self._pending:
            pending, self._pending = pl.concat(self._pending), []
            self._append(pending)

    def _add(self, events: pl.DataFrame) -> None:
        if events.is_empty():
            return
        self.n_events += events.height
        self._pending.append(events)
        if sum(part.height for part in self._pending) >= _PART:
            self.flush()

    def _delete(self, annotation_ids: pl.Series) -> None:
        if annotation_ids.is_empty():
            return
        last = self._last_events(annotation_ids.to_list())
        # The server does not say when it was deleted; updated_at stays the last vote's.
        stamp = pl.lit(self.pulled_at).cast(_SCHEMA["pulled_at"])
        self._add(last.with_columns(event=pl.lit("deleted"), pulled_at=stamp))
        self.standing = self.standing.filter(
            ~pl.col("annotation_id").is_in(annotation_ids.implode())
        )

    def _own_events(self) -> pl.LazyFrame:
        every = pl.concat([self._known(), *(part.lazy() for part in self._pending)])
        return every.filter(pl.col("project_id") == self.project_id)

    def _last_events(self, annotation_ids: Sequence[int]) -> pl.DataFrame:
        """Return the newest event of some standing annotations, with all columns."""
        chosen = self._own_events().filter(pl.col("annotation_id").is_in(list(annotation_ids)))
        return _latest(chosen.with_columns(gone=_IS_DELETED)).collect()

    def _events(
        self,
        tasks: Sequence[Row],
        before: pl.DataFrame,
        names: dict[int, tuple[str, str]],
        rater_of: RaterOf,
    ) -> list[Row]:
        known = set(before["annotation_id"])
        found = [(task, each) for task in tasks for each in task.get("annotations") or []]
        # The rater of a deleted account is read from the table.
        orphans = [
            each["id"]
            for _, each in found
            if each["id"] in known and each.get("completed_by") not in names
        ]
        last = self._last_events(orphans) if orphans else frame([])
        raters = dict(
            zip(last["annotation_id"], last.select("rater_id", "rater_kind").rows(), strict=True)
        )

        def name(user_id: int | None) -> tuple[str, str]:
            listed = names.get(user_id) if user_id is not None else None
            return listed or rater_of(user_id or 0, "")

        rows = []
        for task, annotation in found:
            number, owner = annotation["id"], annotation.get("completed_by")
            rater_id, rater_kind = raters.get(number) or name(owner)
            editor = annotation.get("updated_by")
            rows.append({
                **self._event(task, annotation),
                "rater_id": rater_id,
                "rater_kind": rater_kind,
                "event": "updated" if number in known else "created",
                # The server stores only the last editor: an edit by another account that the
                # owner edits again before the next pull leaves no trace. Imported rows have none.
                "edited_by": None if editor is None or editor == owner else name(editor)[0],
            })  # fmt: skip
        return rows

    def _event(self, task: Row, annotation: Row) -> Row:
        data = task.get("data") or {}
        face = data.get("face_id")
        cancelled = bool(annotation.get("was_cancelled"))
        is_face = data.get("item_kind", "face") == "face"
        answer = (
            columns_of(annotation.get("result"), label_set=self.label_set, was_cancelled=cancelled)
            if is_face
            else item_columns(annotation.get("result"), data, was_cancelled=cancelled)
        )
        return {
            "annotation_id": annotation["id"],
            "task_id": task["id"],
            "project_id": self.project_id,
            "face_id": storable(face) if isinstance(face, str) else None,
            "item_kind": "face" if isinstance(face, str) else None,
            "item_id": storable(face) if isinstance(face, str) else None,
            **answer,
            "lead_time_s": annotation.get("lead_time"),
            "was_cancelled": cancelled,
            # A task pushed with a prediction showed it. The server records that only if the
            # annotator started from the prediction.
            "saw_prediction": annotation.get("parent_prediction") is not None
            or bool(data.get("prediction")),
            "created_at": _time(annotation.get("created_at")),
            "updated_at": _time(annotation.get("updated_at")),
            "pulled_at": self.pulled_at,
        }


def standing_annotations(events: pl.DataFrame, project_id: int) -> pl.DataFrame:
    """Return the newest event of each annotation that was not deleted.

    Skips are included.

    Same order as the view ``standing_annotations``.
    """
    own = events.lazy().filter(pl.col("project_id") == project_id)
    return _latest(own.with_columns(gone=_IS_DELETED)).collect()


def frame(events: list[Row]) -> pl.DataFrame:
    """Return events as rows of ``annotations``."""
    return pl.DataFrame(events, schema=_SCHEMA, orient="row")


def _digest(events: pl.LazyFrame, *more: str) -> pl.LazyFrame:
    """Return the columns of ``EventLog.standing`` and ``more``."""
    # Hashed as text: equal structs of lists need not hash alike. Valid within one process.
    texts = [pl.col("answer").struct.json_encode(), pl.col("answers").fill_null("")]
    said = pl.concat_str(texts).hash(seed=0)
    names = ("annotation_id", "task_id", "updated_at", "was_cancelled")
    return events.select(*names, *more, said=said)


def _latest(events: pl.LazyFrame) -> pl.LazyFrame:
    return (
        events.sort("updated_at", "pulled_at", "gone", descending=True, nulls_last=True)
        .unique("annotation_id", keep="first", maintain_order=True)
        .filter(~pl.col("gone"))
        .sort("annotation_id")
        .drop("gone")
    )


def _changed(before: pl.DataFrame, there: pl.DataFrame) -> pl.Series:
    """Return the ids of annotations that are new or differ."""
    pairs = there.join(before, on="annotation_id", how="left", suffix="_before")
    differs = [
        pl.col(name).ne_missing(pl.col(f"{name}_before"))
        for name in ("task_id", "updated_at", "was_cancelled", "said")
    ]
    return pairs.filter(pl.any_horizontal(differs))["annotation_id"]


def _task_ids(client: LabelStudioClient, project_id: int) -> set[int]:
    tasks = client.tasks(project_id, include="id", task_only=True, page_size=1000)
    return {task["id"] for task in tasks}


def _check_same_project(
    client: LabelStudioClient, project_id: int, oldest: datetime | None
) -> None:
    """Raise if the project is younger than its first vote.

    A new database counts ids from 1 again; then every old vote would look deleted.
    """
    created: Any = client.sdk.projects.get(project_id).created_at
    if oldest is not None and oldest < created:
        raise StudioError(
            f"Project {project_id} at {client.url} is not the one whose votes are in the tables",
            got=f"it was created on {created:%Y-%m-%d %H:%M}, after the first of those votes",
            hint="put back the server's database, or delete this project in Label Studio: the next "
            "push makes one with an id of its own",
        )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
