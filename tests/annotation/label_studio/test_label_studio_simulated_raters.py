"""Simulated raters are deterministic and err at known rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import polars as pl
import pytest

from annotation.label_studio import users
from annotation.label_studio.event_log import standing_annotations
from annotation.label_studio.workspace import Workspace
from annotation.raters import simulated
from annotation.raters.simulated import Answer, SimulatedRater, VoteCounts
from tests.annotation.label_studio.conftest import Board, Studio, pull, push
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import ANSWERS, EXPRESSIONS

HAPPY = tuple(0.9 if name == "happiness" else 0.1 / 9 for name in ANSWERS)
TORN = tuple({"fear": 0.5, "surprise": 0.45}.get(name, 0.05 / 8) for name in ANSWERS)
FACES = [f"face-{number}" for number in range(400)]


def share(rater: SimulatedRater, answer: str, truth: tuple[float, ...] | None) -> float:
    answers = [simulated.decide(rater, face, truth) for face in FACES]
    return sum(answer in given.expressions for given in answers) / len(FACES)


def test_rater__independent_of_the_order_of_faces() -> None:
    rater = simulated.panel(3, seed=7)[1]
    forward = {face: simulated.decide(rater, face, TORN) for face in FACES}
    backward = {face: simulated.decide(rater, face, TORN) for face in reversed(FACES)}
    assert forward == backward
    assert len(set(forward.values())) > 10


def test_panel__extends_a_smaller_one() -> None:
    three, five = simulated.panel(3), simulated.panel(5)
    assert five[:3] == three
    assert len({rater.name for rater in five}) == 5
    assert simulated.panel(3, seed=1) != three
    one, two = ([simulated.decide(rater, f, TORN) for f in FACES] for rater in three[:2])
    assert one != two


def test_rater__reliability_and_bias() -> None:
    careful = SimulatedRater("careful", reliability=0.97, bias="anger")
    careless = SimulatedRater("careless", reliability=0.4, bias="anger")
    assert share(careful, "happiness", HAPPY) > 0.8
    assert share(careless, "happiness", HAPPY) < share(careful, "happiness", HAPPY) - 0.2
    assert share(careless, "anger", HAPPY) > 0.2
    assert share(careless, "anger", HAPPY) > 2 * share(careless, "disgust", HAPPY)


def test_rater__every_kind_of_answer_occurs() -> None:
    rater = SimulatedRater("one", reliability=0.9, bias="neutral")
    torn = [simulated.decide(rater, face, TORN) for face in FACES]
    assert any(set(given.expressions) == {"fear", "surprise"} for given in torn)
    assert 0 < sum(given.skipped for given in torn) < 0.06 * len(FACES)
    assert {given.confidence for given in torn} >= {"likely", "guess"}
    nothing = tuple(float(name == "not_a_face") for name in ANSWERS)
    open_set = [simulated.decide(rater, face, nothing) for face in FACES]
    assert Counter(given.validity for given in open_set)["not_a_face"] > 300
    assert share(rater, "unknown", None) > 0.8


def test_truth__is_a_distribution() -> None:
    even = [1 / 8] * 8
    ratings = pl.DataFrame(
        {
            "face_id": ["closed", "half", "over"],
            "expression": [even, even, even],
            "open_set": [[0.0, 0.0], [0.3, 0.2], [0.9, 0.6]],
        }
    )
    truth = simulated.truth_of(ratings)
    assert {face: len(row) for face, row in truth.items()} == dict.fromkeys(truth, len(ANSWERS))
    assert all(sum(row) == pytest.approx(1) for row in truth.values())
    assert truth["half"][-2:] == pytest.approx((0.3, 0.2))
    assert truth["over"] == pytest.approx((*[0.0] * 8, 0.6, 0.4))


def test_assign__wanted_raters_per_face() -> None:
    raters = simulated.panel(6)
    shares = [simulated.assigned(raters, face, 4) for face in FACES]
    assert {len(set(given)) for given in shares} == {4}
    load = Counter(rater.name for given in shares for rater in given)
    assert len(load) == 6
    assert max(load.values()) < 1.4 * min(load.values())
    assert set(simulated.assigned(raters, "x", 9)) == set(raters)


@pytest.mark.studio
@pytest.mark.slow
def test_simulate__votes_over_http_once(studio: Studio, board: Callable[[int], Board]) -> None:
    made = board(3)
    push(made.client, made.id, made.faces)
    raters = simulated.panel(4)
    truth = dict.fromkeys(made.face_ids, TORN)

    class PulledThePlugError(Exception):
        pass

    def stop_after_five(done: int, _: int) -> None:
        if done == 5:
            raise PulledThePlugError

    def simulate(**more: object) -> VoteCounts:
        return simulated.simulate(
            made.client, studio.home, made.id, truth, raters=raters, wanted_votes=3, **more
        )  # type: ignore[arg-type]

    with pytest.raises(PulledThePlugError):
        simulate(progress=stop_after_five)
    reported: list[tuple[int, int]] = []
    assert simulate(progress=lambda *n: reported.append(n)) == VoteCounts(new=4, known=5)
    assert reported[-1] == (9, 9)
    assert simulate() == VoteCounts(new=0, known=9)

    salted = users.rater_of(Workspace(studio.home))
    events = pull(
        made.client,
        made.id,
        known=TABLES["annotations"].empty(),
        rater_of=salted,
        now=datetime.now(UTC),
    ).events
    votes = standing_annotations(events, made.id)
    assert votes.select("face_id", "rater_id").is_duplicated().sum() == 0
    assert set(votes["rater_kind"]) == {"simulated"}
    accounts = {p.email: p for p in users.own_accounts(studio.home)}
    wanted = {}
    for rater in raters:
        person = accounts[rater.email]
        rater_id, _ = salted(person.user_id, person.email)
        for face in made.face_ids:
            if rater in simulated.assigned(raters, face, 3):
                wanted[face, rater_id] = expected(simulated.decide(rater, face, TORN))
    cast = {
        (row["face_id"], row["rater_id"]): (row["answer"]["expressions"], row["was_cancelled"])
        for row in votes.iter_rows(named=True)
    }
    assert cast == wanted


def expected(answer: Answer) -> tuple[list[str], bool]:
    order = [*EXPRESSIONS, "unknown", "not_a_face"]
    expressions = ["not_a_face"] if answer.validity == "not_a_face" else [*answer.expressions]
    return sorted(expressions, key=order.index), answer.skipped
