"""Simulated raters for the demo and for tests.

Their votes are stored as ``simulated``.

Each has an account and a token of its own and votes over HTTP, as an annotator's browser does. An
answer depends on the rater's name and the face only, not on order, time or earlier runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import polars as pl

from annotation.label_studio import item_page, item_sync, projects, users
from annotation.label_studio.answers import result_of
from annotation.label_studio.client import Address, LabelStudioClient
from annotation.label_studio.item_answers import item_result
from annotation.label_studio.tasks import list_tasks
from annotation.label_studio.users import Account
from annotation.label_studio.workspace import Workspace
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.vocabulary import ANSWERS, EXPRESSIONS, OPEN_SET

DOMAIN = "simulated.risorius.test"

_SKIP_RATE = 0.02
_SECOND_RATE = 0.6
_RIVAL = 0.45
"""Probability relative to the first expression above which a second may be chosen too."""

_UNKNOWN_WITHOUT_TRUTH = tuple(float(name == "unknown") for name in ANSWERS)


@dataclass(frozen=True)
class SimulatedRater:
    """Parameters of one rater.

    Attributes:
        reliability: share of answers drawn from the truth; the rest is biased or random.
        bias: the expression it chooses too often.
    """

    name: str
    reliability: float
    bias: str
    seed: int = 0

    @property
    def email(self) -> str:
        return f"{self.name}@{DOMAIN}"


@dataclass(frozen=True)
class Answer:
    """Answer of one rater about one face."""

    expressions: tuple[str, ...]
    validity: str = "face"
    confidence: str | None = None
    skipped: bool = False
    lead_time_s: float = 0.0


@dataclass(frozen=True)
class VoteCounts:
    """Counts of votes and skips cast now, and of those cast before."""

    new: int
    known: int


def panel(count: int, *, seed: int = 0) -> list[SimulatedRater]:
    """Make raters of random reliability and bias."""
    raters = []
    for number in range(1, count + 1):
        rng = Random(f"{seed}|panel|{number}")
        raters.append(
            SimulatedRater(
                name=f"rater-{number:02d}",
                reliability=round(rng.uniform(0.65, 0.97), 3),
                bias=rng.choice(EXPRESSIONS),
                seed=seed,
            )
        )
    return raters


def truth_of(ratings: pl.DataFrame) -> dict[str, tuple[float, ...]]:
    """Map face ids to distributions over ``ANSWERS``.

    Args:
        ratings: face_id, expression float[8] summing to 1, open_set float[2] in [0, 1].
    """
    truth = {}
    for face_id, closed, opened in ratings.select("face_id", "expression", "open_set").iter_rows():
        open_mass = min(1.0, sum(opened))
        scale = open_mass / sum(opened) if open_mass else 0.0
        truth[face_id] = (
            *(share * (1 - open_mass) for share in closed),
            *(share * scale for share in opened),
        )
    return truth


def decide(rater: SimulatedRater, face_id: str, truth: Sequence[float] | None) -> Answer:
    """Draw the answer of a rater about a face; the same on every call.

    Args:
        truth: distribution over ``ANSWERS``; None means ``unknown``.
    """
    rng = Random(f"{rater.seed}|{rater.name}|{face_id}")
    skipped, lead = rng.random() < _SKIP_RATE, round(rng.lognormvariate(1.2, 0.4), 1)
    seen = _distribution(rater, truth or _UNKNOWN_WITHOUT_TRUTH)
    first = rng.choices(ANSWERS, weights=seen)[0]
    share = seen[ANSWERS.index(first)]
    confidence = "sure" if share > 0.7 else "likely" if share > 0.4 else "guess"
    if skipped:
        return Answer((), skipped=True, lead_time_s=lead)
    if first == "not_a_face":
        return Answer((), validity="not_a_face", confidence=None, lead_time_s=lead)
    if first in OPEN_SET:
        return Answer((first,), confidence="guess", lead_time_s=lead)
    rivals = [
        name
        for name, weight in zip(EXPRESSIONS, seen, strict=False)
        if name != first and weight > _RIVAL * share and rng.random() < _SECOND_RATE
    ]
    return Answer((first, *rivals[:1]), confidence=confidence, lead_time_s=lead)


def assigned(
    raters: Sequence[SimulatedRater], face_id: str, wanted_votes: int
) -> list[SimulatedRater]:
    """Choose ``wanted_votes`` raters for a face, depending on its id."""
    order = sorted(
        raters, key=lambda rater: Random(f"{rater.seed}|{face_id}|{rater.name}").random()
    )
    return order[:wanted_votes]


def vote_on_project(
    workspace: Workspace, *, n_raters: int, progress: Callable[[int, int], None] | None = None
) -> int:
    """Let simulated raters label the project; return the new votes.

    Each answers by the machine rater's reading of a face, with its own bias and carelessness.
    """
    truth = _sharpened(truth_of(tables.read(workspace.home, "ratings")))
    with workspace.connect() as client:
        return simulate(
            client,
            workspace.home,
            projects.ensure(workspace, client).id,
            truth,
            raters=panel(n_raters),
            wanted_votes=workspace.options.wanted_votes,
            progress=progress,
        ).new


def vote_on_segments(workspace: Workspace, page_name: str, *, n_raters: int) -> VoteCounts:
    """Let simulated raters answer every question of a page about segments.

    Idempotent: a rater answers a segment once. Answers depend on the rater's name and the
    segment only.

    Raises:
        StudioError: the server cannot be reached or refuses the token.
    """
    page = item_page.load(page_name)
    new = known = 0
    with workspace.connect() as client:
        project = projects.ensure(
            workspace, client, page=page, title=item_sync.title_of(workspace, page)
        )
        for rater in panel(n_raters):
            person = users.add(client, workspace.home, rater.email, kind="simulated")
            with LabelStudioClient(person.address(client.url)) as own:
                tasks = own.tasks(project.id, include="id,data,annotations,completed_by")
                for task in sorted(tasks, key=lambda one: str(one["data"].get("item_id"))):
                    cast = (row.get("completed_by") for row in task["annotations"])
                    if person.user_id in cast:
                        known += 1
                        continue
                    answers = answer_page(rater, page, task["data"])
                    own.sdk.annotations.create(
                        task["id"], result=item_result(answers, task["data"]), lead_time=2.0
                    )
                    new += 1
    return VoteCounts(new=new, known=known)


def answer_page(
    rater: SimulatedRater, page: item_page.ItemPage, data: Mapping[str, Any]
) -> dict[str, Any]:
    """Draw the answers of a rater to the questions of a page about an item.

    Choices, words, texts and spans are answered, other kinds of questions are not. What the
    raters share is drawn from the item alone, so that they agree more often than by chance.
    """
    item = str(data["item_id"])
    shared, own = Random(f"{rater.seed}|{item}"), Random(f"{rater.seed}|{rater.name}|{item}")
    length = float(data["duration_s"])
    start = shared.uniform(0, length / 2)
    answers: dict[str, Any] = {}
    for question in page.questions:
        classes = question.answers.classes
        truth = shared.choice(classes)
        seen = truth if own.random() < rater.reliability else own.choice(classes)
        if question.kind == "choice":
            answers[question.name] = [seen]
        elif question.kind == "words":
            answers[question.name] = sorted({truth, own.choice(classes)})
        elif question.kind == "text":
            answers[question.name] = f"Drawn at random by {rater.name}."
        elif question.kind == "spans":
            shift = own.uniform(0, length / 8)
            answers[question.name] = [
                {"label": truth, "start_s": round(start + shift, 3),
                 "end_s": round(start + shift + length / 4, 3),
                 "cues": [own.choice(question.options)] if question.options else []}
            ]  # fmt: skip
    return answers


def simulate(
    client: LabelStudioClient,
    home: Home,
    project_id: int,
    truth: Mapping[str, Sequence[float]],
    *,
    raters: Sequence[SimulatedRater],
    wanted_votes: int,
    progress: Callable[[int, int], None] | None = None,
) -> VoteCounts:
    """Cast votes until every face of a project has ``wanted_votes`` raters.

    Args:
        client: signed in as a member who may add accounts.
        truth: face id to a distribution over ``ANSWERS``; missing means ``unknown``.
        progress: called with cast votes and all votes.
    """
    faces = sorted(list_tasks(client, project_id))
    shares = {face: set(assigned(raters, face, wanted_votes)) for face in faces}
    total, new, known = sum(map(len, shares.values())), 0, 0
    for rater in raters:
        person = users.add(client, home, rater.email, kind="simulated")
        answers = {
            face: decide(rater, face, truth.get(face)) for face in faces if rater in shares[face]
        }
        before = new + known

        def report(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        cast = vote_over_http(
            person.address(client.url), person, project_id, answers, progress=report
        )
        new, known = new + cast.new, known + cast.known
    return VoteCounts(new=new, known=known)


def vote_over_http(
    address: Address,
    person: Account,
    project_id: int,
    answers: Mapping[str, Answer],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> VoteCounts:
    """Cast a rater's answers with its token, except those cast before.

    Idempotent, also after a kill. The server sets ``completed_by`` from the token.

    Args:
        answers: face id to answer; faces without a task in the project are left out.

    Raises:
        StudioError: the server cannot be reached or refuses the token.
    """
    with LabelStudioClient(person.address(address.url)) as client:
        open_tasks, known = [], 0
        for task in client.tasks(project_id, include="id,data,annotations,completed_by"):
            face_id = task["data"].get("face_id")
            if face_id not in answers:
                continue
            if any(row.get("completed_by") == person.user_id for row in task["annotations"]):
                known += 1
            else:
                open_tasks.append((task["id"], answers[face_id]))
        for number, (task_id, answer) in enumerate(open_tasks, start=1):
            _cast(client, task_id, answer)
            if progress is not None:
                progress(known + number, known + len(open_tasks))
    return VoteCounts(new=len(open_tasks), known=known)


def _sharpened(truth: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    # A rater trained on votes mixes the spread of annotators with its own doubt. A panel drawn
    # from that as it is agrees far less than people do (FER+: alpha 0.51).
    powers = {face: [share**2 for share in shares] for face, shares in truth.items()}
    return {face: [value / sum(shares) for value in shares] for face, shares in powers.items()}


def _cast(client: LabelStudioClient, task_id: int, answer: Answer) -> None:
    client.sdk.annotations.create(
        task_id,
        result=[] if answer.skipped else _result(answer),
        was_cancelled=answer.skipped,
        lead_time=answer.lead_time_s,
    )


def _result(answer: Answer) -> list[dict[str, object]]:
    return result_of(answer.expressions, validity=answer.validity, confidence=answer.confidence)


def _distribution(rater: SimulatedRater, truth: Sequence[float]) -> list[float]:
    """Mix the truth with the rater's bias and a uniform part.

    Both parts have half of what reliability leaves.
    """
    rest = 1 - rater.reliability
    return [
        rater.reliability * share
        + (rest / 2 if name == rater.bias else 0.0)
        + (rest / 2 / len(EXPRESSIONS) if name in EXPRESSIONS else 0.0)
        for name, share in zip(ANSWERS, truth, strict=True)
    ]
