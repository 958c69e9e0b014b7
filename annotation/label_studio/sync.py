"""Push faces to Label Studio and pull votes back, for a whole home."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import polars as pl

from annotation.label_studio import event_log, item_sync, progress, projects, server, users, webhook
from annotation.label_studio.client import LabelStudioClient
from annotation.label_studio.event_log import PullResult
from annotation.label_studio.labeling_config import page_fingerprint
from annotation.label_studio.marking import mark_contexts
from annotation.label_studio.projects import CLIPS, Project
from annotation.label_studio.tasks import PushResult, annotator_links, open_and_close, push
from annotation.label_studio.users import Account
from annotation.label_studio.webhook import ChangeSignal
from annotation.label_studio.workspace import Workspace
from warehouse.errors import StudioError
from warehouse.storage import mirror, tables, views
from warehouse.storage.home import Home
from warehouse.storage.locks import file_lock
from warehouse.vocabulary import EXPRESSIONS

_LOCK_S = 600
_DAY_S = 86_400


def push_faces(
    workspace: Workspace, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> PushResult:
    """Create a task for every queued face, then open or close tasks.

    Tasks open and close by the number of missing votes.

    Faces with a clip get a project of their own, and so does every self-report account.

    Raises:
        StudioError: the server is unreachable or rejects a request, or a labeling config was
            edited by hand.
    """
    result, queued = PushResult(), queued_faces(workspace)
    workspace.fetch_media([*queued["crop"], *queued["context"]])
    queued = mark_contexts(workspace.home, queued)
    with workspace.connect() as client:
        for clip in (False, True):
            faces = queued.filter(pl.col("clip").is_not_null() == clip)
            # Without any face the first project is created all the same, to be looked at.
            if faces.height or not clip:
                _push_page(workspace, client, faces, result, clip=clip, on_progress=on_progress)
        result.links |= _push_self_reports(workspace, client)
        result.closed, result.reopened = _open_and_close(workspace, client)
    return result


def queued_faces(workspace: Workspace) -> pl.DataFrame:
    """Return the faces to label, in order.

    Columns: ``face_id, crop, context, reason, clip, prediction``.
    """
    home, options = workspace.home, workspace.options
    if options.label_set == "coarse":
        missing = progress.votes_missing(workspace).filter(pl.col("missing") > 0)
        queue = missing.select("face_id", reason=pl.lit("coverage"), priority=pl.lit(0.0))
    else:
        queue = tables.read(home, "queue").select("face_id", "reason", "priority")
    kept = tables.scan(home, "faces").filter(pl.col("verdict") == "kept")
    faces = kept.select("face_id", "track_id", "crop", "context").unique("face_id").collect()
    found = queue.join(faces, on="face_id")
    folder, names = home.media / CLIPS, set[str]()
    if options.show_clips:
        mirror.sync(folder)
        names = {path.name for path in folder.glob("*.webm")}
    clips = pl.format(f"{CLIPS}/{{}}.webm", "track_id")
    has_clip = pl.format("{}.webm", "track_id").is_in(list(names))
    found = found.with_columns(clip=pl.when(has_clip).then(clips))
    found = found.join(_predictions(workspace), on="face_id", how="left")
    return found.sort("priority", "face_id", descending=[True, False])


def pull_votes(
    workspace: Workspace, *, now: datetime
) -> Iterator[tuple[Project, PullResult | StudioError]]:
    """Append the new events of every project to ``annotations``.

    Yield each outcome.

    A project that fails does not stop the others. One process of a home pulls at a time.

    Raises:
        StudioError: the server cannot be reached at all.
    """
    studio_dir = workspace.home.studio
    studio_dir.mkdir(parents=True, exist_ok=True)
    with (
        file_lock(studio_dir / ".pull-lock", purpose="pulling votes", timeout_s=_LOCK_S),
        workspace.connect() as client,
    ):
        for project in all_projects(workspace, client):
            try:
                yield project, _pull(workspace, client, project, now=now)
            except StudioError as error:
                yield project, error


def open_and_close_tasks(workspace: Workspace) -> tuple[int, int]:
    """Open or close tasks by missing votes.

    Return the numbers of closed and reopened ones.

    Does nothing if no face is queued yet.
    """
    if not tables.parts(workspace.home, "queue"):
        return 0, 0
    with workspace.connect() as client:
        return _open_and_close(workspace, client)


def all_projects(workspace: Workspace, client: LabelStudioClient) -> list[Project]:
    """Return every project of the home on the server by id."""
    accounts = users.self_report_accounts(workspace, removed=True)
    own = [users.project_title(workspace, account) for account in accounts]
    titles = [workspace.options.project, *own, *item_sync.item_titles(workspace)]
    return projects.find(workspace, client, titles)


def restore_configs(workspace: Workspace) -> list[int]:
    """Restore labeling configs edited by hand, and media addresses.

    Return project ids.

    Raises:
        StudioError: the server rejects a config because votes exist that do not fit it.
    """
    with workspace.connect() as client:
        every = all_projects(workspace, client)
        return projects.restore_configs(workspace, client, every)


def last_change(workspace: Workspace) -> str | None:
    """Return when anything in any project last changed.

    None if no server runs.

    Starts no server.
    """
    if not workspace.options.label_studio_url and server.running(workspace.home.studio) is None:
        return None
    with workspace.connect() as client:
        times = [client.last_change(found.id) for found in all_projects(workspace, client)]
    return max(filter(None, times), default=None)


@contextmanager
def change_signal(workspace: Workspace) -> Iterator[ChangeSignal | None]:
    """Yield a signal that the home's own server sets at every change.

    Each call also touches ``change_file`` for the sensor. None for a server elsewhere.
    """
    if workspace.options.label_studio_url:
        yield None
        return
    with workspace.connect() as client:
        touch = change_file(workspace.home).touch

        def project_ids() -> list[int]:
            return [found.id for found in all_projects(workspace, client)]

        with webhook.listening(client, project_ids, on_change=touch) as signal:
            yield signal


def change_file(home: Home) -> Path:
    """Return the file whose modification time is the last webhook call."""
    return home.studio / "hint"


def subject_faces(home: Home, account: Account) -> pl.DataFrame:
    """Return the faces of a self-report account's data subject.

    Columns: ``face_id, crop, context, reason``.
    """
    every = views.query(home, "SELECT * FROM subject_faces ORDER BY face_id")
    own = every.filter(pl.col("subject_id") == (account.subject or ""))
    return own.select("face_id", "crop", "context", reason=pl.lit("self"))


def _pull(
    workspace: Workspace, client: LabelStudioClient, project: Project, *, now: datetime
) -> PullResult:
    home = workspace.home
    # Exists while a pull has appended some of its events: the next one must read everything.
    unfinished = home.studio / f"pull-{project.id}-unfinished"
    # Its time is the last pull that read everything. One a day finds what the server stamped with
    # a clock that was set back.
    whole_read = home.studio / f"pull-{project.id}-whole"
    whole = unfinished.exists() or not _is_recent(whole_read)

    def append(events: pl.DataFrame) -> None:
        unfinished.touch()
        part = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
        tables.write(home, "annotations", events, part=part)

    found = event_log.pull(
        client,
        project.id,
        known=partial(tables.scan, home, "annotations"),
        append=append,
        rater_of=users.rater_of(workspace),
        now=now,
        whole=whole,
        project_created_at=dict(projects.noted_projects(home)).get(project.id),
        label_set=project.label_set,
    )
    unfinished.unlink(missing_ok=True)
    projects.note_project(home, project)
    if whole:
        whole_read.touch()
    return found


def _is_recent(path: Path) -> bool:
    return path.exists() and 0 <= time.time() - path.stat().st_mtime < _DAY_S


def _push_page(
    workspace: Workspace,
    client: LabelStudioClient,
    faces: pl.DataFrame,
    result: PushResult,
    *,
    clip: bool,
    on_progress: Callable[[int, int], None],
) -> None:
    page, title = workspace.page(clip=clip), workspace.options.project
    first = projects.ensure(workspace, client, page=page)
    existing = projects.find(workspace, client, [title])
    pushed = push(
        client,
        faces if clip else faces.drop("clip"),
        lambda number: projects.ensure(workspace, client, page=page, round=number).id,
        rounds=max((found.round for found in existing if found.page == first.page), default=1),
        cap=workspace.options.project_cap,
        lock=f"{workspace.home.salt()} {first.page}",
        progress=on_progress,
    )
    result.new, result.known = result.new + pushed.new, result.known + pushed.known
    result.task_ids |= pushed.task_ids
    result.tasks |= pushed.tasks
    result.url = result.url or first.url
    if annotators := users.annotators(workspace.home):
        result.links |= annotator_links(client, [*pushed.tasks][-1], annotators)


def _open_and_close(workspace: Workspace, client: LabelStudioClient) -> tuple[int, int]:
    """Open or close tasks in every project by missing votes.

    Tasks of a former page with the same label set are closed: the present page asks on.
    """
    if not tables.parts(workspace.home, "queue"):
        return 0, 0
    missing = dict(progress.votes_missing(workspace).select("face_id", "missing").iter_rows())
    pages = {page_fingerprint(workspace.page(clip=clip)) for clip in (False, True)}
    found = [
        project
        for project in projects.find(workspace, client, [workspace.options.project])
        if project.label_set == workspace.options.label_set
    ]
    former = open_and_close(client, [one.id for one in found if one.page not in pages], {})
    present = open_and_close(client, [one.id for one in found if one.page in pages], missing)
    own = _open_and_close_self_reports(workspace, client)
    return former[0] + present[0] + own[0], former[1] + present[1] + own[1]


# Self-reports: the open-source server shows every project to every member, and hands out
# whatever a project holds. So a self-report account has a project with nothing but the faces of
# its data subject, and its answers take no annotator's place.


def _push_self_reports(workspace: Workspace, client: LabelStudioClient) -> dict[str, str]:
    """Create a task per self-report account and face.

    Return pseudonym to link.

    An account without a subject, or whose subject has no face yet, gets none.
    """
    links: dict[str, str] = {}
    for account in users.self_report_accounts(workspace):
        faces = subject_faces(workspace.home, account)
        if faces.is_empty():
            continue
        workspace.fetch_media([*faces["crop"], *faces["context"]])
        faces = mark_contexts(workspace.home, faces)
        title = users.project_title(workspace, account)
        project = projects.ensure(workspace, client, title=title, votes=1)
        push(client, faces, partial(_same_project, project.id), lock=str(project.id))
        links |= annotator_links(client, project.id, [account.rater_id])
    return links


def _same_project(project_id: int, _: int) -> int:
    return project_id


def _open_and_close_self_reports(
    workspace: Workspace, client: LabelStudioClient
) -> tuple[int, int]:
    """Keep open what is of an account's subject and misses its answer."""
    closed, reopened, page = 0, 0, page_fingerprint(workspace.page())
    for account in users.self_report_accounts(workspace):
        missing = dict.fromkeys(_unanswered(workspace, account), 1)
        for found in projects.find(workspace, client, [users.project_title(workspace, account)]):
            done = open_and_close(client, [found.id], missing if found.page == page else {})
            closed, reopened = closed + done[0], reopened + done[1]
    return closed, reopened


def _unanswered(workspace: Workspace, account: Account) -> list[str]:
    reports = views.query(workspace.home, "SELECT face_id, rater_id, label_set FROM self_reports")
    own = reports.filter(
        (pl.col("rater_id") == account.rater_id)
        & (pl.col("label_set").fill_null("expressions") == workspace.options.label_set)
    )
    faces = subject_faces(workspace.home, account)
    return faces.join(own, on="face_id", how="anti")["face_id"].to_list()


def _predictions(workspace: Workspace) -> pl.DataFrame:
    """Return ``face_id, prediction``.

    The likeliest expression, if predictions are shown.
    """
    none = pl.DataFrame(schema={"face_id": pl.String, "prediction": pl.String})
    options = workspace.options
    if not options.show_predictions or options.label_set != "expressions":
        return none
    names = dict(enumerate(EXPRESSIONS))
    rated = views.query(
        workspace.home,
        """SELECT face_id, expression FROM ratings
           QUALIFY row_number() OVER (PARTITION BY face_id ORDER BY rater_id DESC) = 1""",
    )
    best = rated["expression"].list.arg_max().replace_strict(names, return_dtype=pl.String)
    return pl.concat([none, rated.select("face_id", prediction=best)])
