"""Publish to a local Hub: tags, privacy, resuming, loading, withdrawal."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.warehouse.hub_server import TOKEN, Hub, Repo, serving
from tests.warehouse.people_home import people_home, release, video_id
from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.privacy import erase
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

Inputs = Callable[..., dict[str, Any]]
Publish = Callable[..., releases.Publication]

RISORIUS = "from pipeline.cli import main; main()"
REPO = "me/faces"

LOAD_AND_TRAIN = """
import json, sys
import torch
from datasets import load_dataset

repo, revision = sys.argv[1:]
data = load_dataset(repo, revision=revision)
votes = load_dataset(repo, "votes", revision=revision)
train = data["train"].select_columns(["image", "soft_label"]).with_format("torch")
network = torch.nn.Linear(3 * 48 * 48, 8)
optimizer = torch.optim.SGD(network.parameters(), lr=0.002)
def loss_of(batch):
    answer = network(batch["image"].flatten(1).float() / 255).log_softmax(dim=1)
    return -(batch["soft_label"] * answer).sum(dim=1).mean()
losses = [loss_of(train[:]).item()]
for batch in torch.utils.data.DataLoader(train, batch_size=4):
    optimizer.zero_grad(); loss_of(batch).backward(); optimizer.step()
losses.append(loss_of(train[:]).item())
ids = sorted(face for part in data.values() for face in part["face_id"])
print(json.dumps([ids, len(votes["train"]), losses, str(data["train"].features["expression"])]))
"""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Start a Hub and let this process reach it; other tests are offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with serving() as found:
        yield found


@pytest.fixture
def publish(hub: Hub, home: Home) -> Callable[..., releases.Publication]:
    def call(**more: Any) -> releases.Publication:
        given = {"name": "faces", "repo": REPO, "endpoint": hub.url, "token": TOKEN} | more
        return releases.publish(given.pop("home", home), **given)

    return call


def process(code: str, *words: str, hub: Hub, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process that knows only this Hub."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    there = {
        "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(folder),
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True, text=True, env=clean | there, timeout=120, check=False,
    )  # fmt: skip


def files(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


@pytest.mark.slow
def test_publish__load_by_tag(
    hub: Hub, publish: Publish, home: Home, inputs: Inputs, tmp_path: Path
) -> None:
    first = releases.build(home, **inputs(home, {"ann": 8, "bob": 4}))
    second = releases.build(home, **inputs(home, {"ann": 8, "bob": 4, "cid": 3}))
    planned = publish(dry_run=True)
    assert hub.repos == {}
    assert (planned.tag, planned.private) == ("v2", True)
    assert planned.files == {name: len(data) for name, data in files(second.path).items()}
    command = ("release", "publish", "faces", "--repo", REPO, "--home", str(home.root), "--json")
    done = process(RISORIUS, *command, "--version", "v1", hub=hub, folder=tmp_path / "one")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["url"] == f"{hub.url}/datasets/{REPO}/tree/v1"
    assert publish().new
    repo = hub.repos[REPO]
    assert repo.private
    assert set(repo.tags) == {"v1", "v2"}
    for version, built in (("v1", first), ("v2", second)):
        held = dict(repo.commits[repo.tags[version]])
        held.pop(".gitattributes")
        assert held == files(built.path)
    done = process(LOAD_AND_TRAIN, REPO, "v1", hub=hub, folder=tmp_path / "two")
    assert done.returncode == 0, done.stderr[-2000:]
    ids, votes, losses, kind = json.loads(done.stdout)
    local = releases.load("faces", "v1", home=home)
    assert ids == sorted(face for part in local.values() for face in part["face_id"])
    assert votes == 36
    assert "happiness" in kind
    assert losses[-1] < losses[0]
    published = tables.read(home, "releases").sort("version")["published"].to_list()
    assert published == [[f"{hub.url} {REPO}"]] * 2


def test_publish__interrupted(
    hub: Hub, publish: Publish, home: Home, inputs: Inputs, tmp_path: Path
) -> None:
    releases.build(home, **inputs(home, {"ann": 30, "bob": 4}), shard_bytes=20_000)
    hub.fail_after = 2
    with pytest.raises(ReleaseError, match="run the same command again") as refused:
        publish()
    assert TOKEN not in str(refused.value)
    assert hub.repos[REPO].tags == {}
    assert tables.read(home, "releases")["published"].to_list() == [[]]
    hub.fail_after = None
    assert publish().new
    assert hub.uploads == len(hub.blobs) > 3
    assert not publish().new
    assert hub.uploads == len(hub.blobs)
    other = Home.at(tmp_path / "other")
    releases.build(other, **inputs(other, {"dee": 5}))
    with pytest.raises(ReleaseError, match="a tag is never moved"):
        publish(home=other)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"token": "hf_wrong"}, "HTTP 401"),
        ({"endpoint": "http://127.0.0.1:9"}, "The Hub at http://127.0.0.1:9 does not answer"),
        ({"version": "v7"}, "only v1"),
        ({"repo": "a b/c"}, "namespace/name"),
    ],
)
def test_publish__errors(
    publish: Publish, home: Home, inputs: Inputs, more: dict[str, str], said: str
) -> None:
    releases.build(home, **inputs(home, {"ann": 2}))
    with pytest.raises(ReleaseError, match=said) as refused:
        publish(**more)
    assert "hf_" not in str(refused.value)


def test_publish__changed_version(hub: Hub, publish: Publish, home: Home, inputs: Inputs) -> None:
    release = releases.build(home, **inputs(home, {"ann": 2}))
    (release.path / "README.md").write_text("better")
    with pytest.raises(ReleaseError, match="is not intact"):
        publish()
    assert hub.repos == {}


def test_publish__private_by_default(
    hub: Hub, publish: Publish, home: Home, inputs: Inputs
) -> None:
    releases.build(home, **inputs(home, {"ann": 2}))
    done = publish(public=True)
    assert not hub.repos[REPO].private
    assert done.private is False
    assert "2 of its faces state no consent" in done.visibility


def of_videos(home: Home, consents: dict[str, str | None]) -> None:
    """Write the videos of ``release_inputs`` with these statements of consent."""
    rows = [
        {"video_id": f"video-{who}", "batch": "day", "consent": text, "verdict": "kept"}
        for who, text in consents.items()
    ]
    frame = pl.DataFrame(rows, schema=TABLES["videos"].schema)
    tables.write(home, "videos", frame, part="all", batch="day")


@pytest.mark.parametrize("exists", [False, True], ids=["new", "already public"])
@pytest.mark.parametrize(
    ("licence", "consent", "said"),
    [
        ("research-only", "yes", "2 real faces (ann-0000-0, ann-0000-1) under research-only"),
        (None, "yes", "under no stated licence"),
        ("our own terms", "yes", "under our own terms"),
        ("CC-BY-4.0", "no", "whose consent was refused or withdrawn"),
        ("CC-BY-4.0", "yes until 2020-01-01", "whose consent has expired"),
        ("CC-BY-4.0", "yes until 2999-01-01", "whose consent ends on a day"),
        ("CC-BY-4.0", "research", "whose consent is limited to a use"),
    ],
)
def test_publish__public_refused(
    hub: Hub, publish: Publish, home: Home, inputs: Inputs,
    licence: str | None, consent: str, said: str, exists: bool,
) -> None:  # fmt: skip
    given = inputs(home, {"ann": 2, "bob": 2})
    own = pl.when(pl.col("subject_id") == "ann").then(pl.lit(licence, dtype=pl.String))
    given["rows"] = given["rows"].with_columns(licence=own.otherwise("licence"))
    releases.build(home, **given)
    of_videos(home, {"ann": consent, "bob": "yes"})
    if exists:
        hub.repos[REPO] = Repo(private=False)
        hub.repos[REPO].commit({})
    for dry_run in (True, False):
        with pytest.raises(ReleaseError, match="do not allow passing faces v1 on") as refused:
            publish(public=not exists, dry_run=dry_run)
        assert said in str(refused.value)
        assert "bob-0000" not in str(refused.value)
        assert "--use public --drop-forbidden" in refused.value.hint
    assert hub.blobs == {}
    assert set(hub.repos) == ({REPO} if exists else set())
    # In private it may go.
    assert publish(repo="me/closed").private


def test_publish__public_without_what_forbids_it(
    hub: Hub, publish: Publish, home: Home, inputs: Inputs
) -> None:
    given = inputs(home, {"ann": 2, "bob": 3, "cid": 4, "dee": 5})
    licences = {"ann": "research-only"}
    consents = {"ann": "yes", "bob": "research", "cid": "yes until 2999-01-01", "dee": "yes"}

    def by(words: dict[str, str], default: str) -> pl.Expr:
        return pl.col("subject_id").replace_strict(words, default=default, return_dtype=pl.String)

    given["rows"] = given["rows"].with_columns(
        licence=by(licences, "CC-BY-NC-4.0"), consent=by(consents, "yes")
    )
    # Weights for research bind the use of what they wrote, not who may have it.
    given["facts"]["models"] = [
        {"name": "machine-risorius-0", "role": "rates faces", "licence": "research-only"}
    ]
    of_videos(home, consents)
    releases.build(home, **given)
    with pytest.raises(ReleaseError) as refused:
        publish(public=True)
    assert [text in str(refused.value) for text in ("2 real", "3 real", "4 real")] == [True] * 3
    release = releases.build(home, **given, use="public", drop_forbidden=True)
    assert (release.version, release.rows) == ("v2", 5)
    assert releases.breaches(release.path) == []
    assert publish(public=True).private is False


def test_publish__consent_withdrawn_since(
    hub: Hub, publish: Publish, home: Home, inputs: Inputs
) -> None:
    releases.build(home, **inputs(home, {"ann": 2}))
    of_videos(home, {"ann": "yes"})
    assert publish(public=True).new
    of_videos(home, {"ann": "withdrawn"})
    with pytest.raises(ReleaseError, match="refused or withdrawn"):
        publish(repo="me/again", public=True)


@pytest.mark.parametrize(
    ("private", "public", "said", "is_private"),
    [
        (None, False, "a new private repository: this token finds none", True),
        (None, True, "a new public repository: this token finds none", False),
        (True, False, "a private repository that exists", True),
        (True, True, "exists; --public does not change it", True),
        (False, False, "a public repository that exists", False),
        (False, True, "a public repository that exists", False),
    ],
)
def test_dry_run__visibility(
    hub: Hub, publish: Publish, home: Home, inputs: Inputs,
    private: bool | None, public: bool, said: str, is_private: bool,
) -> None:  # fmt: skip
    releases.build(home, **inputs(home, {"ann": 2}))
    if private is not None:
        hub.repos[REPO] = Repo(private=private)
        hub.repos[REPO].commit({})
    planned = publish(public=public, dry_run=True)
    assert planned.private is is_private
    assert said in planned.visibility
    assert hub.blobs == {}
    done = publish(public=public)
    assert done.private is hub.repos[REPO].private is is_private


def test_dry_run__hub_away(publish: Publish, home: Home, inputs: Inputs) -> None:
    given = inputs(home, {"ann": 2})
    given["rows"] = given["rows"].with_columns(licence=pl.lit("research-only"))
    releases.build(home, **given)
    planned = publish(endpoint="http://me:word@127.0.0.1:9", dry_run=True)
    assert planned.private is None
    assert "its visibility is not known" in planned.visibility
    assert "into a public one it is refused: 2 real faces" in planned.visibility
    assert "word" not in planned.url


def test_withdraw__deletes_history(hub: Hub, publish: Publish, home: Home, inputs: Inputs) -> None:
    first = releases.build(home, **inputs(home, {"ann": 4, "bob": 3}))
    publish()
    gone = {file.read_bytes() for file in first.path.rglob("*.parquet")}
    second = releases.build(home, **inputs(home, {"ann": 4}))
    location = f"{hub.url} {REPO}"
    done = releases.withdraw(
        home, name="faces", version="v1", successor="v2", location=location, token=TOKEN
    )
    assert done[0] == "tag v1 deleted"
    repo = hub.repos[REPO]
    assert set(repo.tags) == {"v2"}
    assert {repo.branches["main"], *repo.tags.values()} == set(repo.commits)
    assert set(hub.blobs.values()) == {file.read_bytes() for file in second.path.rglob("*.parquet")}
    assert gone - set(hub.blobs.values())


def test_forget__withdraws_from_hub(hub: Hub, publish: Publish, home: Home) -> None:
    people_home(home)
    release(home)
    publish()
    erase.forget(home, "subject", "ann")
    (away,) = releases.withdraw_all(home, token="hf_wrong").values()
    assert away.startswith("not withdrawn")
    assert set(hub.repos[REPO].tags) == {"v1"}
    (done,) = releases.withdraw_all(home, token=TOKEN).values()
    assert "tag v1 deleted" in done
    assert set(hub.repos[REPO].tags) == {"v1.1"}
    held = [*hub.blobs.values()]
    for tree in hub.repos[REPO].commits.values():
        held += tree.values()
    hers = video_id("ann-b").encode()
    assert not any(hers in data for data in held)
    tables_held = [pl.read_parquet(io.BytesIO(data)) for data in hub.blobs.values()]
    assert not any((frame["face_id"].str.starts_with(hers.decode())).any() for frame in tables_held)
    assert releases.withdraw_all(home, token=TOKEN) == {}
