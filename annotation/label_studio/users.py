"""People with accounts and tokens of their own: a vote is cast by whoever casts it, never for them.

The server has no roles: every member may edit everything. What it knows of a person is the
account; tables and releases hold pseudonyms (``warehouse.ids.pseudonym``).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from annotation.label_studio.address import Address, write_private
from annotation.label_studio.client import Client, connect
from annotation.label_studio.projects import submit_with_enter
from annotation.label_studio.pull import User
from warehouse.errors import StudioError
from warehouse.ids import pseudonym
from warehouse.storage.locks import file_lock

KINDS = ("person", "simulated", "self")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


@dataclass(frozen=True)
class Person:
    """An account on the server.

    Attributes:
        kind: ``person``, ``simulated`` or ``self``: the rater kind of every vote it casts.
        removed: it may vote no more; kept, so that its votes keep their pseudonym.
        subject: of a filmed person: whose faces they are asked about.
        url: of the server that knows the account.
        rater_id: the pseudonym of an account that another machine made; address, token and
            password are then empty.
    """

    email: str
    user_id: int
    kind: str
    removed: bool
    token: str = field(repr=False)
    password: str = field(repr=False)
    subject: str | None = None
    url: str = ""
    rater_id: str = ""

    def address(self, url: str) -> Address:
        """Where this person votes."""
        return Address(url=url, token=self.token)


def add(
    client: Client,
    studio_dir: Path,
    email: str,
    *,
    kind: str = "person",
    subject: str | None = None,
) -> Person:
    """Make an account through the invite link, or return the one made before.

    A ``subject`` is noted for an account of the kind ``self``, also for one made before.

    Accounts are kept in ``people.json``, which only its owner can read. The password is written
    there before the account is made, so a run killed in between is finished by the next one.

    Raises:
        StudioError: no e-mail address, one that was removed or is not ours, or a refusal.
    """
    email = _checked(email, kind)
    with _alone(studio_dir):
        accounts = _load(studio_dir)
        account = accounts.get(email)
        if account is None or (account["url"] != client.url and not _moved(client, account)):
            account = {"url": client.url, "kind": kind, "password": secrets.token_urlsafe(12)}
        if account.get("removed"):
            raise StudioError(
                "the e-mail address of somebody who may vote",
                got=f"{email}, who was removed",
                hint="use another address for them",
            )
        account["url"] = client.url
        if subject and account["kind"] == "self":
            account["subject"] = subject
        _save(studio_dir, {**accounts, email: account})
        if "token" not in account:
            account |= _enrol(client, email, account["password"])
            _save(studio_dir, {**accounts, email: account})
        return _person(email, account)


def list_people(studio_dir: Path) -> list[Person]:
    """Everybody with an account made here, by e-mail, removed ones included."""
    accounts = _load(studio_dir).items()
    return [_person(email, account) for email, account in sorted(accounts) if "token" in account]


def remove(client: Client, studio_dir: Path, email: str) -> bool:
    """Take a person out of the organization and end their token; False when there is none such.

    Their votes stay. The open-source server lets nobody lock an account for good: who still
    knows the password can sign in again, but is listed there as deleted.
    """
    email = email.strip().lower()
    with _alone(studio_dir):
        accounts = _load(studio_dir)
        account = accounts.get(email)
        if account is None or account.get("removed") or "token" not in account:
            return False
        with Client(Address(client.url, account["token"])) as person:
            person.write("POST", "/api/current-user/reset-token/")
        organization = client.whoami()["active_organization"]
        client.write(
            "DELETE", f"/api/organizations/{organization}/memberships/{account['user_id']}/"
        )
        account |= {"removed": True, "token": ""}
        _save(studio_dir, {**accounts, email: account})
        return True


def rater_of(studio_dir: Path, *, salt: str) -> Callable[[User], tuple[str, str]]:
    """What ``pull`` asks: the pseudonym and kind of an account, also of a removed one.

    An account that was not made here (the pipeline's own, a colleague's) votes as a person.
    """
    people = list_people(studio_dir)
    by_id = {person.user_id: person for person in people}
    by_email = {person.email: person for person in people}

    def name(user: User) -> tuple[str, str]:
        # An address is surer than a number, which starts anew with the database.
        found = by_email.get(user.email.lower()) if user.email else by_id.get(user.id)
        if found is not None:
            return pseudonym(found.kind, salt, found.email), found.kind
        return pseudonym("person", salt, user.email or f"user {user.id}"), "person"

    return name


def _enrol(client: Client, email: str, password: str) -> dict[str, Any]:
    """Sign in, or sign up when there is no such account; a token of the person's own."""
    with httpx.Client(base_url=client.url, timeout=60) as browser:
        if not _post(browser, "/user/login/", email=email, password=password):
            link = client.read("/api/invite")["invite_url"]
            if not _post(browser, link, email=email, password=password):
                raise StudioError(
                    f"a new account for {email} at {client.url}",
                    got="a refusal; somebody may have made it by hand",
                    hint="use another e-mail address, or remove that account in Label Studio",
                )
        token = _own_token(browser, client.url)
    with connect(Address(client.url, token)) as person:
        submit_with_enter(person)
        return {"token": token, "user_id": person.whoami()["id"]}


def _post(browser: httpx.Client, page: str, **fields: str) -> bool:
    """Fill in a form of the server; it answers success with a redirect, failure with the form."""
    browser.get(page)
    body = {
        **fields,
        "csrfmiddlewaretoken": browser.cookies.get("csrftoken") or "",
        "persist_session": "on",
    }
    return browser.post(page, data=body, headers={"Referer": str(browser.base_url)}).is_redirect


def _own_token(browser: httpx.Client, url: str) -> str:
    """The signed-in person's own token: the short kind where allowed, else a personal one."""
    token = browser.get("/api/current-user/token").json().get("token", "")
    used = httpx.get(
        f"{url}/api/current-user/whoami", headers={"Authorization": f"Token {token}"}, timeout=60
    )
    if used.status_code == 200:
        return token
    headers = {"X-CSRFToken": browser.cookies.get("csrftoken") or "", "Referer": url}
    made = browser.post("/api/token/", headers=headers)
    if made.status_code == 409:
        # One per account, and shown once: a run was killed between making and noting it.
        for old in browser.get("/api/token/").json():
            browser.post("/api/token/blacklist/", json={"refresh": old["token"]}, headers=headers)
        made = browser.post("/api/token/", headers=headers)
    if not made.is_success:
        raise StudioError(
            f"an access token for a new account at {url}",
            got=f"HTTP {made.status_code}",
            hint="allow access tokens in the organization's settings",
        )
    return made.json()["token"]


def _moved(client: Client, account: dict[str, Any]) -> bool:
    """Whether this is the server that knew the account by another address (a new port)."""
    if "token" not in account:
        return False
    try:
        with connect(Address(client.url, account["token"])):
            return True
    except StudioError:
        return False


def _checked(email: str, kind: str) -> str:
    email = email.strip().lower()
    if not _EMAIL.fullmatch(email) or kind not in KINDS:
        raise StudioError(
            f"an e-mail address and one of {', '.join(KINDS)}",
            got=f"{email!r}, {kind!r}",
            hint="write it like name@example.org",
        )
    return email


def _person(email: str, account: dict[str, Any]) -> Person:
    return Person(
        email=email,
        user_id=account["user_id"],
        kind=account["kind"],
        removed=account.get("removed", False),
        token=account["token"],
        password=account["password"],
        subject=account.get("subject"),
        url=account["url"],
    )


def _alone(studio_dir: Path) -> Any:
    studio_dir.mkdir(parents=True, exist_ok=True)
    return file_lock(studio_dir / ".people-lock", purpose="changing who may vote", timeout_s=120)


def _load(studio_dir: Path) -> dict[str, dict[str, Any]]:
    path = studio_dir / "people.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _save(studio_dir: Path, accounts: dict[str, dict[str, Any]]) -> None:
    write_private(studio_dir / "people.json", accounts)
