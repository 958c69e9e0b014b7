"""Pictures from the home's bucket on a server without a shared disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from annotation.label_studio import projects, sync
from annotation.label_studio.client import LabelStudioClient
from annotation.label_studio.media import Bucket, check_bucket, sync_storage
from annotation.label_studio.users import Account
from pipeline import doctor
from tests.annotation.label_studio.conftest import Studio, api, faces, push
from tests.annotation.label_studio.far import READER, SECRET, Far, far_home, s3_url
from tests.annotation.label_studio.test_label_studio_projects import offered, vote
from tests.object_store import BUCKET
from warehouse.errors import StudioError
from warehouse.ids import pseudonym
from warehouse.storage import atomic
from warehouse.storage.object_store import ObjectStore as Objects

__all__ = ["s3_url"]

pytestmark = [pytest.mark.studio, pytest.mark.slow]

ROWS = "/api/storages/s3/"
TYPES = {"crop": "image/png", "context": "image/jpeg", "clip": "video/webm"}
CLIP = b"\x1aE\xdf\xa3" + bytes(range(256)) * 8


@pytest.fixture
def far(
    studio: Studio, s3_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Far]:
    with far_home(studio, s3_url, tmp_path, request.node.originalname[-40:]) as made:
        yield made


def browser_of(person: Account, url: str) -> httpx.Client:
    headers = {"Authorization": f"Token {person.token}"}
    return httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False)


def body_of(browser: httpx.Client, address: str, **headers: str) -> httpx.Response:
    """GET an address; send the token to the server only, as browsers do."""
    answer = browser.get(address, headers=headers)
    if not answer.is_redirect:
        return answer
    return httpx.get(answer.headers["Location"], headers=headers, timeout=30, trust_env=False)


@pytest.mark.parametrize("presign", [True, False])
def test_media__members_only(
    far: Far, client: LabelStudioClient, voters: list[Account], presign: bool
) -> None:
    made = far.office(2, show_clips=True, studio_s3_presign=presign)
    atomic.write_bytes(far.home.media / "clips" / "drawn-0000.webm", CLIP)
    number = max(made.push().tasks)
    task = offered(client, number)[made.face_ids[0]]
    with browser_of(voters[0], client.url) as browser:
        shown = browser.get(f"/api/tasks/{task}/").json()["data"]
        raw = browser.get(f"/api/tasks/{task}/?resolve_uri=false").json()["data"]
        for name, kind in TYPES.items():
            assert raw[name].startswith(f"s3://{BUCKET}/{far.prefix}/media/")
            key = raw[name].partition("/media/")[2]
            assert "/resolve/?fileuri=" in shown[name]
            assert browser.get(shown[name]).is_redirect == presign
            came = body_of(browser, shown[name])
            assert came.content == (far.home.media / key).read_bytes(), name
            assert came.headers["Content-Type"] == kind
        part = body_of(browser, shown["clip"], Range="bytes=4-7")
        assert (part.status_code, part.content) == (206, CLIP[4:8])
        guide = browser.get(f"/api/projects/{number}/").json()["expert_instruction"]
        assert "local-files" not in guide
        drawing = guide.partition(f'src="/projects/{number}/resolve/')[2].partition('"')[0]
        came = body_of(browser, f"/projects/{number}/resolve/{drawing}")
        assert came.headers["Content-Type"] == "image/svg+xml"
        assert b"<svg" in came.content
    for address in [*(shown[name] for name in TYPES), f"/projects/{number}/resolve/{drawing}"]:
        stranger = httpx.get(client.url + address, timeout=30, trust_env=False)
        assert stranger.status_code in (401, 403)
        assert "Signature" not in stranger.text

    (row,) = api(client, "GET", ROWS, project=number)
    assert api(client, "GET", "/api/storages/localfiles/", project=number) == []
    assert not {READER, SECRET} & set(map(str, row.values()))
    vote(voters[0], client, task, "fear")
    assert made.pull()[number].n_standing == 1
    votes = "SELECT face_id, answer.expressions, rater_id FROM current_votes"
    rater = pseudonym("person", far.home.salt(), voters[0].email)
    assert made.ask(votes) == [(made.face_ids[0], ["fear"], rater)]
    assert made.push().new == 0
    assert api(client, "GET", ROWS, project=number) == [row]


def test_media__access_is_limited_by_the_keys(
    far: Far, client: LabelStudioClient, voters: list[Account]
) -> None:
    made = far.office(1)
    (number,) = made.push().tasks
    task = offered(client, number)[made.face_ids[0]]
    salt = far.home.salt()
    source = made.workspace().media_source()
    assert isinstance(source, Bucket)
    address = f"s3://{BUCKET}/{far.prefix}/salt"
    asked = source.resolve_path(address, number).replace(f"/projects/{number}", f"/tasks/{task}")
    kept = {"picture": "guide/neutral.svg", "outside": "salt"}
    with browser_of(voters[0], client.url) as browser, _signed_in(made) as ours:
        assert browser.get(asked).is_redirect
        assert body_of(browser, asked).status_code == 403
        assert check_bucket(ours, number, **kept) == ("", None)
        far.proxy.readers[READER] = f"{BUCKET}/"
        assert body_of(browser, asked).text == salt
        assert "salt" in check_bucket(ours, number, **kept)[0]
        # Another bucket has no row, so the server does not even sign.
        other = source.resolve_path("s3://elsewhere/salt", number)
        assert browser.get(other).status_code == 404


def test_push__new_keys_and_rejected_keys(
    far: Far, client: LabelStudioClient, voters: list[Account]
) -> None:
    made = far.office(1, studio_s3_key="UNKNOWN0001", studio_s3_secret="secret-of-an-unknown-key")
    with pytest.raises(StudioError, match="RISORIUS_STUDIO_S3_KEY") as refused:
        made.push()
    assert "secret-of-an-unknown-key" not in str(refused.value)
    with pytest.raises(StudioError, match="S3_ENDPOINT there"):
        made.push(studio_s3_endpoint="http://10.0.0.1:9000")
    made.given["studio_s3_endpoint"] = far.proxy.url
    (number,) = (found.id for found in _projects(made))
    assert client.counts(number)[0] == 0

    made.push(studio_s3_key=READER, studio_s3_secret=SECRET)
    (first,) = api(client, "GET", ROWS, project=number)
    address = f"/api/tasks/{offered(client, number)[made.face_ids[0]]}/"
    far.proxy.readers["READER0002"] = far.proxy.readers.pop(READER)
    with browser_of(voters[0], client.url) as browser:
        crop = browser.get(address).json()["data"]["crop"]
        assert body_of(browser, crop).status_code == 403
        made.push(studio_s3_key="READER0002", studio_s3_secret="its secret")
        assert body_of(browser, crop).status_code == 200
    (second,) = api(client, "GET", ROWS, project=number)
    assert second["id"] == first["id"]
    assert second["description"] != first["description"]


def test_push__tasks_move_to_the_bucket_and_back(
    studio: Studio, far: Far, client: LabelStudioClient, voters: list[Account]
) -> None:
    given: dict[str, Any] = {"wanted_votes": 2, "media_dir": studio.home.media, "owner": "o"}
    number = projects.ensure_project(client, title="it moves", **given).id
    pushed = push(client, number, faces(studio.home, 30)).task_ids
    voted = pushed["drawn-0000-1"]
    vote(voters[0], client, voted, "anger")
    api(
        client, "PATCH", f"/api/projects/{number}/", {"expert_instruction": _edited(client, number)}
    )

    far.home.salt()
    objects = Objects(f"s3://{BUCKET}/{far.prefix}")
    for path in studio.home.media.rglob("*.*"):
        objects.upload(path, f"media/{path.relative_to(studio.home.media).as_posix()}")
    bucket = Bucket(
        BUCKET, f"{far.prefix}/media/", endpoint=far.proxy.url, region="us-east-1",
        key=READER, secret=SECRET,
    )  # fmt: skip
    before = _kept(client, number)
    with LabelStudioClient(studio.address, media=bucket) as far_client:
        assert projects.ensure_project(far_client, title="it moves", **given).id == number
        assert _addresses(client, number) == {f"s3://{BUCKET}/{far.prefix}/media"}
        assert push(far_client, number, faces(studio.home, 31)).new == 1
        assert sync_storage(far_client, number, owner="o") == 0
        # Killed after the row and before the last task: the next one goes on.
        (row,) = api(client, "GET", ROWS, project=number)
        begun = {"description": f"{row['description']}, tasks not yet re-addressed"}
        api(client, "PATCH", f"{ROWS}{row['id']}", begun)
        old = api(client, "GET", f"/api/tasks/{voted}/", resolve_uri="false")["data"]
        there = {"data": old | {"crop": "/data/local-files/?d=crops/ab/c.png", "context": ""}}
        api(client, "PATCH", f"/api/tasks/{voted}/", there)
        assert sync_storage(far_client, number, owner="o") == 1
        kept = api(client, "GET", f"/api/tasks/{voted}/", resolve_uri="false")["data"]
        assert (kept["crop"], kept["context"]) == (bucket.address("crops/ab/c.png"), "")
        api(client, "PATCH", f"/api/tasks/{voted}/", {"data": old})
    guide = api(client, "GET", f"/api/projects/{number}/")["expert_instruction"]
    assert "our rule" in guide
    assert "local-files" not in guide

    projects.ensure_project(client, title="it moves", **given)
    assert api(client, "GET", ROWS, project=number) == []
    assert _addresses(client, number) == {"/data/local-files/"}
    assert "local-files" in api(client, "GET", f"/api/projects/{number}/")["expert_instruction"]
    assert {task: _kept(client, number)[task] for task in before} == before


def test_doctor__reports_the_source_of_media(far: Far, client: LabelStudioClient) -> None:
    made = far.office(1)

    def finding_of() -> tuple[str, str]:
        (finding,) = [
            found for found in doctor.examine(made.settings()) if found.what == "pictures to label"
        ]
        return finding.state, f"{finding.found} {finding.hint}"

    assert finding_of()[0] == "note"
    (number,) = made.push().tasks
    state, words = finding_of()
    assert (state, f"s3://{BUCKET}/{far.prefix}/media/" in words) == ("ok", True)
    far.proxy.cross_origin = False
    assert [finding_of()[0], "CORS" in finding_of()[1]] == ["wrong", True]
    far.proxy.cross_origin = True
    far.proxy.readers[READER] = f"{BUCKET}/"
    assert [finding_of()[0], "salt" in finding_of()[1]] == ["wrong", True]
    far.proxy.readers.clear()
    assert [finding_of()[0], "403" in finding_of()[1]] == ["wrong", True]
    (row,) = api(client, "GET", ROWS, project=number)
    api(client, "DELETE", f"{ROWS}{row['id']}")
    assert [finding_of()[0], "label push" in finding_of()[1]] == ["wrong", True]
    made.given["media_from"] = "folder"
    assert [finding_of()[0], "mount" in finding_of()[1]] == ["note", True]


def _signed_in(made: Any) -> Any:
    return made.workspace().connect()


def _projects(made: Any) -> list[projects.Project]:
    with _signed_in(made) as ours:
        return sync.all_projects(made.workspace(), ours)


def _edited(client: LabelStudioClient, number: int) -> str:
    guide = api(client, "GET", f"/api/projects/{number}/")["expert_instruction"]
    return f"our rule: no hats<br/>{guide}"


def _addresses(client: LabelStudioClient, number: int) -> set[str]:
    tasks = client.tasks(number, include="id,data", task_only=True)
    return {
        task["data"][name].partition("?d=")[0].partition("/crops/")[0].partition("/contexts/")[0]
        for task in tasks
        for name in ("crop", "context")
    }


def _kept(client: LabelStudioClient, number: int) -> dict[int, Any]:
    """Return per task what new addresses keep: face, order, annotations."""
    include = "id,data,annotations,result,completed_by,lead_time,was_cancelled,is_labeled"
    return {
        task["id"]: (
            {name: value for name, value in task["data"].items() if name not in TYPES},
            task["is_labeled"],
            [
                (row["id"], row["result"], row["completed_by"], row["lead_time"])
                for row in task["annotations"]
            ],
        )
        for task in client.tasks(number, include=include)
    }
