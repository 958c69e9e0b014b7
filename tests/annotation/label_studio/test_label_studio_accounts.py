"""Annotators have accounts and stay pseudonymous after removal."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from annotation.label_studio import users
from annotation.label_studio.client import LabelStudioClient, connect
from annotation.label_studio.users import Account
from annotation.label_studio.workspace import Workspace
from tests.annotation.label_studio.conftest import Studio, api
from warehouse.errors import StudioError
from warehouse.ids import pseudonym
from warehouse.storage.home import Home

pytestmark = pytest.mark.studio


def test_add__each_account_has_its_own_token(studio: Studio, voters: list[Account]) -> None:
    assert len({person.token for person in voters} | {studio.address.token}) == 4
    for person in voters:
        with connect(person.address(studio.address.url)) as client:
            assert client.sdk.users.whoami().email == person.email
            assert client.sdk.users.whoami().id == person.user_id


def test_add__is_idempotent(
    studio: Studio, client: LabelStudioClient, voters: list[Account]
) -> None:
    members = client.user_emails()
    again = users.add(client, studio.home, f" {voters[0].email.upper()} ")
    assert again == voters[0]
    assert client.user_emails() == members
    assert voters[0] in users.own_accounts(studio.home)


def test_add__secrets_are_in_one_private_file(studio: Studio, voters: list[Account]) -> None:
    path = studio.home.studio / "people.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert voters[0].token in path.read_text()
    assert voters[0].token not in repr(voters)
    assert voters[0].password not in repr(voters)


@pytest.mark.parametrize("made_on_server", [False, True])
def test_add__resumes_after_a_kill(
    studio: Studio, client: LabelStudioClient, made_on_server: bool
) -> None:
    """The run is killed after it stored the password.

    The server has made the account by then, or not.
    """
    folder, email = studio.home, f"killed-{made_on_server}@example.org".lower()
    if made_on_server:
        person = users.add(client, folder, email)
    path = folder.studio / "people.json"
    accounts = json.loads(path.read_text())
    noted = {"url": client.url, "kind": "person", "password": "noted-before-1"}
    if made_on_server:
        noted["password"] = person.password
    path.write_text(json.dumps(accounts | {email: noted}))
    assert email not in [person.email for person in users.own_accounts(folder)]
    added = users.add(client, folder, email)
    assert added.password == noted["password"]
    with connect(added.address(client.url)) as own:
        assert own.sdk.users.whoami().email == email


def test_remove__account_cannot_vote_and_keeps_its_pseudonym(
    studio: Studio, client: LabelStudioClient
) -> None:
    folder = studio.home
    eve = users.add(client, folder, "eve@example.org")
    assert users.remove(client, folder, "Eve@Example.org")
    assert not users.remove(client, folder, "eve@example.org")
    assert not users.remove(client, folder, "stranger@example.org")
    with pytest.raises(StudioError, match="HTTP 401"):
        connect(eve.address(client.url))
    with pytest.raises(StudioError, match="was removed"):
        users.add(client, folder, "eve@example.org")
    # The server hides the address of who was removed.
    assert eve.user_id not in client.user_emails()
    name = users.rater_of(Workspace(folder))(eve.user_id, "")
    assert name == (pseudonym("person", folder.salt(), "eve@example.org"), "person")
    (kept,) = [person for person in users.own_accounts(folder) if person.email == eve.email]
    assert (kept.removed, kept.token, kept.user_id) == (True, "", eve.user_id)


def test_rater_of__kinds_and_unknown_accounts(studio: Studio, client: LabelStudioClient) -> None:
    folder = studio.home
    stand_in = users.add(client, folder, "stand-in@example.org", kind="simulated")
    rater_of = users.rater_of(Workspace(folder))
    own = rater_of(stand_in.user_id, stand_in.email)
    assert own == (pseudonym("simulated", folder.salt(), stand_in.email), "simulated")
    assert own[0].startswith("simulated-")
    stranger = rater_of(4711, "guest@example.org")
    assert stranger == (pseudonym("person", folder.salt(), "guest@example.org"), "person")
    assert rater_of(4711, "") != rater_of(4712, "")


@pytest.mark.parametrize(
    ("removed", "voter"),
    [((), None), (("ada",), "ada"), (("ada", "ben"), None)],
)
def test_rater_of__number_that_two_accounts_had(
    tmp_path: Path, removed: tuple[str, ...], voter: str | None
) -> None:
    """A restored database gives numbers of accounts again."""
    home = Home.at(tmp_path)
    home.studio.mkdir(parents=True)
    entries = {
        f"{name}@example.org": {
            "url": "http://x", "kind": "person", "password": "-", "token": "-", "user_id": 7,
            **({"removed": True} if name in removed else {}),
        }
        for name in ("ada", "ben")
    }  # fmt: skip
    (home.studio / users.ACCOUNTS).write_text(json.dumps(entries))
    name = users.rater_of(Workspace(home))
    whose = f"{voter}@example.org" if voter else "user 7"
    assert name(7, "") == (pseudonym("person", home.salt(), whose), "person")
    assert name(7, "ben@example.org")[0] == pseudonym("person", home.salt(), "ben@example.org")


@pytest.mark.parametrize(
    ("email", "kind"),
    [("no address", "person"), ("a@b", "person"), ("", "person"), ("a@b.org", "machine")],
)
def test_add__rejects_invalid_address_or_kind(
    studio: Studio, client: LabelStudioClient, email: str, kind: str
) -> None:
    with pytest.raises(StudioError, match=r"name@example\.org"):
        users.add(client, studio.home, email, kind=kind)


def test_add__does_not_take_over_a_manual_account(
    studio: Studio, client: LabelStudioClient
) -> None:
    body = {"email": "hand@example.org", "username": "hand", "first_name": "", "last_name": ""}
    api(client, "POST", "/api/users/", body)
    with pytest.raises(StudioError, match="made by hand"):
        users.add(client, studio.home, "hand@example.org")
