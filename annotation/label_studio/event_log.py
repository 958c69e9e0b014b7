"""Pull annotations of a project as events: created, updated, deleted.

The ``annotations`` table is append-only. A pull compares the server with the annotations that
stand in the table and appends an event per difference, so nothing is lost and nothing doubled.

An annotation is known by project, number and ``created_at``. A server that was restored from an
older copy gives numbers again: the same number with another ``created_at`` is another vote. The
former one gets a ``deleted`` event, and so does an answer that went back to an older one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from annotation.label_studio.answers import columns_of, storable
from annotation.label_studio.client import LabelStudioClient
from annotation.label_studio.item_answers import item_columns
from annotation.label_studio.projects import another_project
from warehouse.storage.schema import TABLES

Row = dict[str, Any]
RaterOf = Callable[[int, str], tuple[str, str]]
"""User id and e-mail (empty if the account was deleted) to pseudonym and rater kind."""

_SCHEMA = TABLES["annotations"].schema
_KEY = ("annotation_id", "created_at")
_IS_DELETED = pl.col("event") == "deleted"
_INCLUDE = (
    "id,data,updated_at,annotations,result,completed_by,updated_by,lead_time,was_cancelled,"
    "parent_prediction,created_at"
)
_TICK = timedelta(microseconds=1)
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
        n_deleted: annotations of the table that are not on the server any more.
        n_reused: those among them whose number now belongs to another annotation.
        n_older: annotations whose answer on the server is older than the known one.
        n_returned: annotations that are on the server again after they were deleted.
    """

    n_events: int
    n_on_server: int
    n_standing: int
    _: KW_ONLY
    n_deleted: int = 0
    n_reused: int = 0
    n_older: int = 0
    n_returned: int = 0

    @property
    def complete(self) -> bool:
        """Return whether table and server agree."""
        return self.n_on_server == self.n_standing

    @property
    def restored(self) -> str:
        """Return what shows that the server went back in time, or ''."""
        signs = {
            "{} numbers belong to other votes now": self.n_reused,
            "{} answers are older than the known ones": self.n_older,
            "{} deleted votes are there again": self.n_returned,
        }
        found = [text.format(count) for text, count in signs.items() if count]
        if not found:
            return ""
        return (
            f"the server seems to be restored from an older copy: {', '.join(found)}; "
            f"{self.n_deleted} votes are not there any more and were recorded as deleted"
        )


def pull(
    client: LabelStudioClient,
    project_id: int,
    *,
    known: Callable[[], pl.LazyFrame],
    append: Callable[[pl.DataFrame], None],
    rater_of: RaterOf,
    now: datetime,
    whole: bool = False,
    project_created_at: datetime | None = None,
    label_set: str = "expressions",
    page_size: int = 500,
) -> PullResult:
    """Append the events since the last pull.

    Changed tasks are read. After each pass the server's database counts its annotations. If it
    disagrees with the table, deleted tasks are searched, then everything is read again; a
    remaining difference shows in ``PullResult.complete``. Memory: one page of tasks, one part
    of events, and about 60 bytes per standing annotation.

    Everything is read as well if the server has lost the newest known vote, or if its clock is
    behind that vote: then changes may be stamped earlier than what is known.

    Tasks are read by rising id, so the events of an interrupted pull do not tell how far it
    got: the next pull must be ``whole``.

    Args:
        known: returns the ``annotations`` table of all projects as it stands at the call.
        append: appends events to that table.
        now: our clock; stamps ``pulled_at`` and has no influence on what is read.
        whole: read every task.
        project_created_at: when the project was created, if a former pull or push noted it.
        label_set: label set of the project's page.
        page_size: tasks per request.

    Raises:
        StudioError: the server is unreachable or rejects the token, or the project is missing
            or another one.
    """
    events = EventLog(project_id, known=known, append=append, now=now, label_set=label_set)
    _check_same_project(client, project_id, events.oldest, project_created_at)
    emails = client.user_emails()
    names = {number: rater_of(number, email) for number, email in emails.items()}
    newest, n_on_server = events.newest, 0
    since = newest["updated_at"] if newest and not whole else None
    for number in range(_PASSES):
        begun, changed_at = time.monotonic(), client.last_change(project_id)
        if since and client.server_time and client.server_time < since - _OVERLAP:
            since = None
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
        lost = number == 0 and since is not None and not events.has(newest, seen)
        if quick and n_on_server == events.standing.height and not lost:
            break
        whole_next = changed_at is None or number + 1 == _WHOLE_PASS or lost
        since = None if whole_next else datetime.fromisoformat(changed_at or "")
    events.flush()
    return PullResult(events.n_events, n_on_server, events.standing.height, **events.counts)


class EventLog:
    """The events of one project.

    Those in the table and those that a pull adds.

    Args:
        known, append, now, label_set: as in ``pull``.

    Attributes:
        oldest: ``created_at`` of the first vote, deleted ones included.
        newest: the standing annotation with the last ``updated_at``, or None.
        pulled_at: stamp of new events. Later than every older one, whatever our clock says,
            because it tells whether an event came after a deletion.
        standing: ``annotation_id, created_at, task_id, updated_at, was_cancelled, said, rater``
            of annotations that are not deleted; the last two are hashes of the answer and of
            the pseudonym.
        n_events: number of new events.
        counts: ``n_deleted``, ``n_reused``, ``n_older``, ``n_returned`` of ``PullResult``.
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
        self.counts = dict.fromkeys(("n_deleted", "n_reused", "n_older", "n_returned"), 0)
        every = self._own_events()
        self.oldest, last = every.select(
            pl.col("created_at").min(), pl.col("pulled_at").max()
        ).collect().row(0)  # fmt: skip
        self.pulled_at: datetime = later(now, last)
        hashed = _digest(every, "pulled_at", "event")
        self.standing = _latest(hashed).drop("pulled_at", "event").collect()
        self._deleted = every.filter(_IS_DELETED).select(_KEY).unique().collect()
        self.newest: Row | None = next(
            self.standing.sort("updated_at", nulls_last=False).tail(1).iter_rows(named=True), None
        )

    def compare(
        self, tasks: Sequence[Row], names: dict[int, tuple[str, str]], rater_of: RaterOf
    ) -> None:
        """Add events for the differences in some tasks, which are read whole.

        Args:
            names: user id to pseudonym and kind of the accounts that the server lists.
        """
        ids = [task["id"] for task in tasks]
        numbers = [each["id"] for task in tasks for each in task.get("annotations") or []]
        # A server never gives a number twice: whatever else has it in the table is gone.
        touched = pl.col("task_id").is_in(ids) | pl.col("annotation_id").is_in(numbers)
        before = self.standing.filter(touched)
        there = frame(self._events(tasks, before, names, rater_of))
        digests = _digest(there.lazy()).collect()
        pairs = _pairs(before, digests)
        gone = before.join(digests, on=_KEY, how="anti", nulls_equal=True)
        another, older = (pairs.filter(pl.col(name)) for name in ("another", "older"))
        new = pairs.filter(~pl.col("known"))
        self._count(
            n_deleted=gone.height + another.height,
            n_reused=gone.filter(pl.col("annotation_id").is_in(numbers)).height + another.height,
            n_older=older.height,
            n_returned=_among(new, self._deleted).height,
        )
        self._delete(pl.concat([one.select(_KEY) for one in (gone, another, older)]))
        created = pl.concat([new, another, older])
        if _among(created, self._deleted).height:
            self.pulled_at += _TICK  # A deletion ends the events up to its own time.
        there = there.with_columns(pulled_at=pl.lit(self.pulled_at).cast(_SCHEMA["pulled_at"]))
        self._add(_among(there, created).with_columns(event=pl.lit("created")))
        edited = pairs.filter(pl.col("edited"))
        self._add(_among(there, edited).with_columns(event=pl.lit("updated")))
        self.standing = pl.concat([self.standing.filter(~touched), digests])

    def has(self, annotation: Row | None, task_ids: Iterable[int]) -> bool:
        """Return whether an annotation stands in one of some tasks."""
        if annotation is None:
            return True
        same = pl.all_horizontal(pl.col(name).eq_missing(annotation[name]) for name in _KEY)
        now = self.standing.filter(same & (pl.col("updated_at") >= annotation["updated_at"]))
        return now.height == 1 and annotation["task_id"] in task_ids

    def delete_missing_tasks(self, task_ids: Iterable[int]) -> None:
        """Add deletions of the annotations whose task is not among ``task_ids``."""
        there = pl.DataFrame({"task_id": list(task_ids)}, schema={"task_id": pl.Int64})
        gone = self.standing.join(there, on="task_id", how="anti")
        self._count(n_deleted=gone.height)
        self._delete(gone.select(_KEY))

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

    def _delete(self, keys: pl.DataFrame) -> None:
        if keys.is_empty():
            return
        last = self._last_events(keys)
        # The server does not say when it was deleted; updated_at stays the last vote's.
        stamp = pl.lit(self.pulled_at).cast(_SCHEMA["pulled_at"])
        self._add(last.with_columns(event=pl.lit("deleted"), pulled_at=stamp))
        self._deleted = pl.concat([self._deleted, keys])
        self.standing = self.standing.join(keys, on=_KEY, how="anti", nulls_equal=True)

    def _count(self, **counts: int) -> None:
        for name, count in counts.items():
            self.counts[name] += count

    def _own_events(self) -> pl.LazyFrame:
        every = pl.concat([self._known(), *(part.lazy() for part in self._pending)])
        return every.filter(pl.col("project_id") == self.project_id)

    def _last_events(self, keys: pl.DataFrame) -> pl.DataFrame:
        """Return the newest event of some standing annotations, with all columns."""
        chosen = self._own_events().join(keys.lazy(), on=_KEY, how="semi", nulls_equal=True)
        return _latest(chosen).collect()

    def _events(
        self,
        tasks: Sequence[Row],
        before: pl.DataFrame,
        names: dict[int, tuple[str, str]],
        rater_of: RaterOf,
    ) -> list[Row]:
        known = set(before.select(_KEY).iter_rows())
        found = [(task, each) for task in tasks for each in task.get("annotations") or []]
        # The rater of a deleted account is read from the table.
        orphans = [
            _key(each)
            for _, each in found
            if each.get("completed_by") not in names and _key(each) in known
        ]
        last = self._last_events(_keys(orphans)) if orphans else frame([])
        raters = dict(
            zip(last.select(_KEY).rows(), last.select("rater_id", "rater_kind").rows(), strict=True)
        )

        def name(user_id: int | None) -> tuple[str, str]:
            listed = names.get(user_id) if user_id is not None else None
            return listed or rater_of(user_id or 0, "")

        rows = []
        for task, annotation in found:
            owner = annotation.get("completed_by")
            rater_id, rater_kind = raters.get(_key(annotation)) or name(owner)
            editor = annotation.get("updated_by")
            rows.append({
                **self._event(task, annotation),
                "rater_id": rater_id,
                "rater_kind": rater_kind,
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


def later(now: datetime, last: datetime | None) -> datetime:
    """Return a time for new events: later than every known one.

    Whatever our clock says, so that it tells whether an event came after a deletion.
    """
    return max(now, last + _TICK) if last else now


def standing_annotations(events: pl.DataFrame, project_id: int) -> pl.DataFrame:
    """Return the newest event of each annotation since its last deletion.

    Skips are included. Same rule as the view ``standing_annotations``.
    """
    own = events.lazy().filter(pl.col("project_id") == project_id)
    # Numbers of imports, whose project is negative, are hashes: no number is given twice.
    key = _KEY if project_id > 0 else _KEY[:1]
    return _latest(own, key).collect()


def frame(events: list[Row]) -> pl.DataFrame:
    """Return events as rows of ``annotations``."""
    return pl.DataFrame(events, schema=_SCHEMA, orient="row")


def _digest(events: pl.LazyFrame, *more: str) -> pl.LazyFrame:
    """Return the columns of ``EventLog.standing`` and ``more``."""
    # Hashed as text: equal structs of lists need not hash alike. Valid within one process.
    texts = [pl.col("answer").struct.json_encode(), pl.col("answers").fill_null("")]
    said = pl.concat_str(texts).hash(seed=0)
    names = (*_KEY, "task_id", "updated_at", "was_cancelled")
    return events.select(*names, *more, said=said, rater=pl.col("rater_id").hash(seed=0))


def _latest(events: pl.LazyFrame, key: Sequence[str] = _KEY) -> pl.LazyFrame:
    ended = pl.col("pulled_at").filter(_IS_DELETED).max().over(key)
    # Of two events of one time an update counts, as in the view.
    order = ("updated_at", "pulled_at", "event")
    return (
        events.filter(ended.is_null() | (pl.col("pulled_at") > ended))
        .sort(*order, descending=True, nulls_last=True, maintain_order=True)
        .unique(key, keep="first", maintain_order=True)
        .sort(_KEY)
    )


def _pairs(before: pl.DataFrame, there: pl.DataFrame) -> pl.DataFrame:
    """Return the annotations of the server with what the table says of them.

    Columns: ``annotation_id, created_at``; ``known`` if the table has it; ``another`` if it is
    on another task, or was put in another account's name; ``older`` if its answer is older than
    the known one; ``edited`` if it is the same annotation with another answer.
    """
    known = before.with_columns(known=pl.lit(value=True))
    pairs = there.join(
        known, on=_KEY, how="left", suffix="_before", nulls_equal=True, maintain_order="left"
    )

    def differs(name: str) -> pl.Expr:
        return pl.col(name).ne_missing(pl.col(f"{name}_before"))

    answer = pl.any_horizontal(differs(name) for name in ("updated_at", "was_cancelled", "said"))
    # A pseudonym may change on our side alone, with an account's address.
    another = differs("task_id") | (differs("rater") & differs("updated_at"))
    older = (pl.col("updated_at") < pl.col("updated_at_before")).fill_null(value=False)
    pairs = pairs.with_columns(known=pl.col("known").fill_null(value=False))
    pairs = pairs.with_columns(another=pl.col("known") & another)
    pairs = pairs.with_columns(older=pl.col("known") & ~pl.col("another") & older)
    same = pl.col("known") & ~pl.col("another") & ~pl.col("older")
    return pairs.select(*_KEY, "known", "another", "older", edited=same & answer)


def _among(rows: pl.DataFrame, keys: pl.DataFrame) -> pl.DataFrame:
    return rows.join(keys, on=_KEY, how="semi", nulls_equal=True, maintain_order="left")


def _key(annotation: Row) -> tuple[int, datetime | None]:
    return annotation["id"], _time(annotation.get("created_at"))


def _keys(keys: list[tuple[int, datetime | None]]) -> pl.DataFrame:
    return pl.DataFrame(keys, schema={name: _SCHEMA[name] for name in _KEY}, orient="row")


def _task_ids(client: LabelStudioClient, project_id: int) -> set[int]:
    tasks = client.tasks(project_id, include="id", task_only=True, page_size=1000)
    return {task["id"] for task in tasks}


def _check_same_project(
    client: LabelStudioClient,
    project_id: int,
    oldest: datetime | None,
    created_at: datetime | None,
) -> None:
    """Raise if the project is another one than that whose votes are known.

    A new database counts ids from 1 again; then every old vote would look deleted. Without a
    noted ``created_at`` a project that is younger than its first vote is another one.
    """
    now: Any = client.sdk.projects.get(project_id).created_at
    if created_at is not None and now != created_at:
        raise another_project(client, project_id, now, known=f"the known one at {created_at}")
    if oldest is not None and oldest < now:
        raise another_project(client, project_id, now, known="after the first of those votes")


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
