"""Two machines with one bucket and one Label Studio share annotators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from annotation.label_studio import users
from annotation.label_studio.client import LabelStudioClient
from pipeline.settings import Settings
from tests.annotation.label_studio.conftest import Studio
from tests.annotation.label_studio.far import Far, far_home, s3_url
from tests.object_store import BUCKET
from warehouse.errors import StudioError
from warehouse.storage import mirror
from warehouse.storage.home import Home
from warehouse.storage.object_store import ObjectStore

__all__ = ["s3_url"]

pytestmark = pytest.mark.studio

ANN, EVE = "ann.far@example.org", "eve.far@example.org"


@pytest.fixture
def far(studio: Studio, s3_url: str, tmp_path: Path) -> Iterator[Far]:
    with far_home(studio, s3_url, tmp_path / "a", "people") as made:
        yield made


@pytest.fixture
def machine(far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Settings]:
    """``machine("b")``: the settings of machine ``b`` after a sync."""

    def at(name: str) -> Settings:
        monkeypatch.setenv("RISORIUS_WORK", str(tmp_path / name))
        settings = Settings(home=Home.at(f"s3://{BUCKET}/{far.prefix}").root, **far.given)
        mirror.sync(settings.place.root, force=True)
        return settings

    return at


def test_accounts__shared_pseudonyms_without_address_or_token(
    far: Far, machine: Callable[[str], Settings], client: LabelStudioClient
) -> None:
    first = machine("a")
    ann = users.add_account(first.label_studio, ANN)
    eve = users.add_account(first.label_studio, EVE, subject="eve-1")
    ids = {email: number for number, email in client.user_emails().items()}

    second = machine("b")
    assert second.place.root != first.place.root
    assert [one.summary() for one in users.list_accounts(second.label_studio)] == [
        account.summary() | {"email": ""}
        for account in sorted((ann, eve), key=lambda account: account.rater_id)
    ]
    (filmed,) = users.self_report_accounts(second.label_studio)
    mine = users.self_report_accounts(first.label_studio)[0]
    assert filmed.subject == "eve-1"
    titles = [
        users.project_title(settings.label_studio, person)
        for settings, person in ((first, mine), (second, filmed))
    ]
    assert titles[0] == titles[1]

    assert users.add_account(second.label_studio, ANN).rater_id == ann.rater_id
    for refused in (
        lambda: users.remove_account(second.label_studio, EVE),
        lambda: users.add_account(second.label_studio, EVE, subject="eve-2"),
    ):
        with pytest.raises(StudioError, match="Another machine"):
            refused()
    before = (first.place.studio / "people.json").read_text()
    assert users.remove_account(first.label_studio, EVE)
    second = machine("b")
    assert [
        account["state"]
        for account in [one.summary() for one in users.list_accounts(second.label_studio)]
    ] == [
        "removed" if account is eve else "active"
        for account in sorted((ann, eve), key=lambda account: account.rater_id)
    ]
    for settings in (first, second):
        name = users.rater_of(settings.label_studio)
        assert name(ids[ANN], ANN) == (ann.rater_id, "person")
        # The server hides the address of a removed account.
        assert name(ids[EVE], "") == (eve.rater_id, "self")

    # An older copy of the accounts, put back, restores no account.
    kept = (first.place.studio / "people.json").read_text()
    (first.place.studio / "people.json").write_text(before)
    users.rater_of(first.label_studio)
    assert [one.summary() for one in users.list_accounts(machine("b").label_studio)] == [
        one.summary() for one in users.list_accounts(second.label_studio)
    ]

    objects = ObjectStore(f"s3://{BUCKET}/{far.prefix}")
    stored = {key: objects.read(key) or b"" for key in objects.list("")}
    assert {key for key in stored if key.startswith("people/")} == {
        f"people/{account.rater_id}.json" for account in (ann, eve)
    }
    assert ANN in kept
    for key, data in stored.items():
        assert b"@example.org" not in data, key
        assert b"password" not in data, key
        assert b"token" not in data, key


def test_accounts__local_without_a_bucket(
    studio: Studio, client: LabelStudioClient, tmp_path: Path
) -> None:
    given = {"LABEL_STUDIO_URL": studio.address.url, "LABEL_STUDIO_API_KEY": studio.address.token}
    settings = Settings(home=tmp_path / "home", **given)
    made = users.add_account(settings.label_studio, "own.far@example.org")
    assert [
        account["email"]
        for account in [one.summary() for one in users.list_accounts(settings.label_studio)]
    ] == [made.email]
    assert not (settings.place.root / "people").exists()
