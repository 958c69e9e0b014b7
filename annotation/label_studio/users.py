"""Accounts of annotators and their pseudonyms in tables and releases.

The server has no roles: every member may edit everything. Each annotator has an account and a
token of their own, in ``people.json`` of the machine that made it. Machines that share a home in
a bucket and a server elsewhere know each other's accounts by pseudonym alone.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from annotation.label_studio.client import Address, LabelStudioClient, connect, write_private
from annotation.label_studio.projects import submit_with_enter
from annotation.label_studio.workspace import Workspace
from warehouse.errors import StudioError
from warehouse.ids import pseudonym
from warehouse.storage import atomic, mirror
from warehouse.storage.home import Home
from warehouse.storage.locks import file_lock

KINDS = ("person", "simulated", "self")
ACCOUNTS = "people.json"

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_SHARED = ("rater_id", "url", "user_id", "kind", "removed", "subject")


@dataclass(frozen=True)
class Account:
    """An account on the server.

    Attributes:
        email: empty if another machine made the account; so are token and password.
        kind: ``person``, ``simulated`` or ``self``: rater kind of every vote of the account.
        removed: it may no longer vote; its votes keep their pseudonym.
        rater_id: pseudonym in tables and releases.
        subject: of a self-report account: the data subject whose faces it is asked about.
        url: address of the server.
    """

    email: str
    user_id: int
    kind: str
    rater_id: str
    removed: bool = False
    token: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    subject: str | None = None
    url: str = ""

    def address(self, url: str) -> Address:
        """Return the address under which this account signs in."""
        return Address(url=url, token=self.token)

    def summary(self) -> dict[str, str]:
        """Return what commands show of the account."""
        subject = self.subject or "none: add again with --subject"
        return {
            "email": self.email,
            "rater_id": self.rater_id,
            "kind": self.kind,
            "state": "removed" if self.removed else "active",
            **({"subject": subject} if self.kind == "self" else {}),
        }


def list_accounts(workspace: Workspace) -> list[Account]:
    """Return the accounts made here by e-mail, then those of other machines."""
    own = own_accounts(workspace.home)
    names = {account.rater_id for account in own}
    return own + [account for account in _shared(workspace) if account.rater_id not in names]


def self_report_accounts(workspace: Workspace, *, removed: bool = False) -> list[Account]:
    """Return the self-report accounts.

    With ``removed`` also those that may no longer vote.
    """
    return [
        account
        for account in list_accounts(workspace)
        if account.kind == "self" and (removed or not account.removed)
    ]


def project_title(workspace: Workspace, account: Account) -> str:
    """Return the title of a self-report account's project."""
    return f"{workspace.options.project[:36]} {account.rater_id}"


def add_account(workspace: Workspace, email: str, *, subject: str | None = None) -> Account:
    """Create an annotator's account, or return the existing one.

    Args:
        subject: makes it a self-report account, which is asked about this data subject only.

    Raises:
        StudioError: invalid address, the server rejects it, or another machine made the
            account with another subject.
    """
    other = _made_elsewhere(workspace, email)
    if other is not None:
        if subject not in (None, other.subject):
            raise _elsewhere_error(email)
        return other
    with workspace.connect() as client:
        kind = "self" if subject else "person"
        made = add(client, workspace.home, email, kind=kind, subject=subject)
    _share(workspace, [made])
    return made


def remove_account(workspace: Workspace, email: str) -> bool:
    """End an account's token and membership.

    Return False if there is no such account.

    Raises:
        StudioError: another machine made the account and holds the token.
    """
    if _made_elsewhere(workspace, email) is not None:
        raise _elsewhere_error(email)
    with workspace.connect() as client:
        removed = remove(client, workspace.home, email)
    _share(workspace, _own_here(workspace))
    return removed


def rater_of(workspace: Workspace) -> Callable[[int, str], tuple[str, str]]:
    """Return a function from user id and e-mail to pseudonym and rater kind.

    The server hides the e-mail of a removed member; its id is looked up instead. An account
    that was not made here (the pipeline's own, a colleague's) votes as a person.
    """
    salt = workspace.home.salt()
    _share(workspace, _own_here(workspace))
    own, shared = own_accounts(workspace.home), _shared(workspace)
    # An e-mail is a safer key than an id, which a new or restored database gives again.
    known = {account.rater_id: account for account in [*own, *shared]}

    def name(user_id: int, email: str) -> tuple[str, str]:
        email = email.lower()
        names = [pseudonym(kind, salt, email) for kind in KINDS]
        found = next((known[one] for one in names if one in known), None)
        if not email:
            of_id = [one for one in known.values() if one.user_id == user_id]
            hidden = of_id if len(of_id) == 1 else [one for one in of_id if one.removed]
            found = hidden[0] if len(hidden) == 1 else None
        if found is not None:
            return found.rater_id, found.kind
        return pseudonym("person", salt, email or f"user {user_id}"), "person"

    return name


def own_accounts(home: Home) -> list[Account]:
    """Return the accounts made on this machine, by e-mail.

    Removed ones are included.
    """
    salt = home.salt()
    return [
        _account(email, entry, salt)
        for email, entry in sorted(_load(home).items())
        if "token" in entry
    ]


def annotators(home: Home) -> list[str]:
    """Return the pseudonyms of people with an account made here."""
    return [
        account.rater_id
        for account in own_accounts(home)
        if account.kind == "person" and not account.removed
    ]


def add(
    client: LabelStudioClient,
    home: Home,
    email: str,
    *,
    kind: str = "person",
    subject: str | None = None,
) -> Account:
    """Create an account through the invite link, or return the existing one.

    The password is stored before the account is created, so the next run finishes a killed one.

    Args:
        subject: stored for an account of the kind ``self``, also for an existing one.

    Raises:
        StudioError: invalid address or kind, a removed account, one made by hand, or the
            server rejects it.
    """
    email = _checked(email, kind)
    with _lock(home):
        entries = _load(home)
        entry = entries.get(email)
        if entry is None or (entry["url"] != client.url and not _accepts(client, entry)):
            entry = {"url": client.url, "kind": kind, "password": secrets.token_urlsafe(12)}
        if entry.get("removed"):
            raise StudioError(
                "The account was removed and cannot be added again",
                got=email,
                hint="use another e-mail address",
            )
        entry["url"] = client.url
        if subject and entry["kind"] == "self":
            entry["subject"] = subject
        _save(home, {**entries, email: entry})
        if "token" not in entry:
            entry |= _enrol(client, email, entry["password"])
            _save(home, {**entries, email: entry})
        return _account(email, entry, home.salt())


def remove(client: LabelStudioClient, home: Home, email: str) -> bool:
    """Remove an account from the organization and end its token.

    False if there is none.

    Its votes stay. The open-source server cannot lock an account: with the password one can
    still sign in, but is listed as deleted.
    """
    email = email.strip().lower()
    with _lock(home):
        entries = _load(home)
        entry = entries.get(email)
        if entry is None or entry.get("removed") or "token" not in entry:
            return False
        with LabelStudioClient(Address(client.url, entry["token"])) as own:
            own.sdk.users.reset_token()
        organization = client.sdk.users.whoami().active_organization or 0
        client.sdk.organizations.members.delete(organization, entry["user_id"])
        entry |= {"removed": True, "token": ""}
        _save(home, {**entries, email: entry})
        return True


def _enrol(client: LabelStudioClient, email: str, password: str) -> dict[str, Any]:
    """Sign in, or sign up if there is no such account.

    Return token and user id.
    """
    with httpx.Client(base_url=client.url, timeout=60) as browser:
        if not _submit_form(browser, "/user/login/", email=email, password=password):
            link = client.sdk.organizations.invites.get_invite_link().invite_url or ""
            if not _submit_form(browser, link, email=email, password=password):
                raise StudioError(
                    f"Label Studio at {client.url} did not accept the new account",
                    got=f"{email}; it may have been made by hand",
                    hint="use another e-mail address, or remove that account in Label Studio",
                )
        token = _first_token(browser, client.url)
    with connect(Address(client.url, token)) as own:
        submit_with_enter(own)
        return {"token": token, "user_id": own.sdk.users.whoami().id}


def _submit_form(browser: httpx.Client, page: str, **fields: str) -> bool:
    """Submit a form of the server and return whether it was accepted.

    The server redirects on success and repeats the form otherwise.
    """
    browser.get(page)
    body = {
        **fields,
        "csrfmiddlewaretoken": browser.cookies.get("csrftoken") or "",
        "persist_session": "on",
    }
    return browser.post(page, data=body, headers={"Referer": str(browser.base_url)}).is_redirect


def _first_token(browser: httpx.Client, url: str) -> str:
    """Return a token of the signed-in account.

    The legacy kind if allowed, else a personal one.
    """
    token = browser.get("/api/current-user/token").json().get("token", "")
    if _is_accepted(url, token):
        return token
    headers = {"X-CSRFToken": browser.cookies.get("csrftoken") or "", "Referer": url}
    made = browser.post("/api/token/", headers=headers)
    if made.status_code == 409:
        # One per account, shown once: a run was killed between creating and storing it.
        for old in browser.get("/api/token/").json():
            browser.post("/api/token/blacklist/", json={"refresh": old["token"]}, headers=headers)
        made = browser.post("/api/token/", headers=headers)
    if not made.is_success:
        raise StudioError(
            f"Label Studio at {url} refused a token for a new account",
            got=f"HTTP {made.status_code}",
            hint="allow access tokens in the organization's settings",
        )
    return made.json()["token"]


def _accepts(client: LabelStudioClient, entry: dict[str, Any]) -> bool:
    """Return whether the server knows the account.

    The address of the account may have another port now.
    """
    return "token" in entry and _is_accepted(client.url, entry["token"])


def _is_accepted(url: str, token: str) -> bool:
    try:
        with connect(Address(url, token)):
            return True
    except StudioError:
        return False


def _checked(email: str, kind: str) -> str:
    email = email.strip().lower()
    if not _EMAIL.fullmatch(email) or kind not in KINDS:
        raise StudioError(
            f"An account needs an e-mail address and a kind of {', '.join(KINDS)}",
            got=f"{email!r}, {kind!r}",
            hint="write it like name@example.org",
        )
    return email


def _account(email: str, entry: dict[str, Any], salt: str) -> Account:
    return Account(
        email=email,
        user_id=entry["user_id"],
        kind=entry["kind"],
        rater_id=pseudonym(entry["kind"], salt, email),
        removed=entry.get("removed", False),
        token=entry["token"],
        password=entry["password"],
        subject=entry.get("subject"),
        url=entry["url"],
    )


def _lock(home: Home) -> AbstractContextManager[None]:
    home.studio.mkdir(parents=True, exist_ok=True)
    return file_lock(home.studio / ".people-lock", purpose="changing accounts", timeout_s=120)


def _load(home: Home) -> dict[str, dict[str, Any]]:
    path = home.studio / ACCOUNTS
    return json.loads(path.read_text()) if path.exists() else {}


def _save(home: Home, entries: dict[str, dict[str, Any]]) -> None:
    write_private(home.studio / ACCOUNTS, entries)


def _shared(workspace: Workspace) -> list[Account]:
    """Return the shared accounts of this server, by pseudonym.

    They come from any machine of the home.
    """
    folder = _shared_folder(workspace)
    if folder is None:
        return []
    mirror.sync(folder)
    entries = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [Account(email="", **entry) for entry in entries if entry["url"] == _url(workspace)]


def _share(workspace: Workspace, accounts: Iterable[Account]) -> None:
    """Share accounts with the other machines of the home.

    Does nothing if there are none.

    A removed account stays removed, whatever an older copy of ``people.json`` says.
    """
    folder = _shared_folder(workspace)
    if folder is None:
        return
    known = {account.rater_id: account for account in _shared(workspace)}
    for account in accounts:
        before = known.get(account.rater_id)
        entry = {name: getattr(account, name) for name in _SHARED}
        entry["removed"] |= before is not None and before.removed
        if before is None or any(getattr(before, name) != entry[name] for name in _SHARED):
            text = json.dumps(entry, indent=1) + "\n"
            atomic.write_text(folder / f"{account.rater_id}.json", text)


def _own_here(workspace: Workspace) -> list[Account]:
    """Return this machine's accounts on the server that the options name."""
    return [one for one in own_accounts(workspace.home) if one.url == _url(workspace)]


def _made_elsewhere(workspace: Workspace, email: str) -> Account | None:
    """Return the account with this e-mail if another machine made it."""
    address, salt = email.strip().lower(), workspace.home.salt()
    names = {pseudonym(kind, salt, address) for kind in KINDS}
    names -= {account.rater_id for account in _own_here(workspace)}
    return next((one for one in _shared(workspace) if one.rater_id in names), None)


def _elsewhere_error(email: str) -> StudioError:
    return StudioError(
        "Another machine made the account and holds its token",
        got=email,
        hint=f"run the same command on that machine; its {ACCOUNTS} names the account",
    )


def _url(workspace: Workspace) -> str:
    return (workspace.options.label_studio_url or "").rstrip("/")


def _shared_folder(workspace: Workspace) -> Path | None:
    """Return the folder of shared accounts.

    None unless home and server are elsewhere.
    """
    shared = workspace.options.label_studio_url and mirror.url_of(workspace.home.root)
    return workspace.home.root / mirror.PEOPLE if shared else None
