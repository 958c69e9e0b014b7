"""The people of a home: accounts, pseudonyms, and who of them was filmed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.settings import Settings
from pipeline.studio import roster
from pipeline.studio.server import client_of
from warehouse.errors import StudioError
from warehouse.ids import pseudonym

if TYPE_CHECKING:
    from annotation.label_studio.pull import User
    from annotation.label_studio.users import Person

_ELSEWHERE = "people.json of the machine that made the account"


def filmed(settings: Settings, *, removed: bool = False) -> list[Person]:
    """The filmed people, by e-mail; with ``removed`` those too who may vote no more."""
    return [
        person
        for person in _everybody(settings)
        if person.kind == "self" and (removed or not person.removed)
    ]


def title_of(settings: Settings, person: Person) -> str:
    """The title of a filmed person's project."""
    return f"{settings.project[:36]} {pseudonym_of(settings, person)}"


def rater_of(settings: Settings) -> Callable[[User], tuple[str, str]]:
    """From an account to the pseudonym and kind that tables and releases show."""
    from annotation.label_studio import users

    home = settings.place
    salt = home.salt()
    roster.share(settings, _own_entries(settings))
    known = {entry.rater_id: entry for entry in roster.entries(settings)}
    by_id = {entry.user_id: entry for entry in known.values()}
    own = users.rater_of(home.studio, salt=salt)

    def name(user: User) -> tuple[str, str]:
        if user.email:
            names = [pseudonym(kind, salt, user.email.lower()) for kind in users.KINDS]
            found = next((known[one] for one in names if one in known), None)
        else:
            found = by_id.get(user.id)
        return (found.rater_id, found.kind) if found else own(user)

    return name


def add_person(settings: Settings, email: str, *, subject: str | None = None) -> dict[str, str]:
    """Give somebody an account; what they need to sign in lies in ``password_file``.

    Args:
        subject: of a filmed person, who then judges the faces of that subject and no others.

    Raises:
        StudioError: no address, a refusal, or another subject for an account of another machine.
    """
    from annotation.label_studio import users

    studio, kind = settings.place.studio, "self" if subject else "person"
    if (there := _elsewhere(settings, email)) is not None:
        if subject not in (None, there.subject):
            raise _made_elsewhere(email)
        return _shown(settings, there) | {"email": email, "password_file": _ELSEWHERE}
    with client_of(settings) as client:
        made = users.add(client, studio, email, kind=kind, subject=subject)
    roster.share(settings, [_entry(settings, made)])
    return _shown(settings, made) | {"password_file": str(studio / "people.json")}


def list_people(settings: Settings) -> list[dict[str, str]]:
    """Everybody with an account of this home, by e-mail, with their pseudonym.

    Of an account that another machine made only the pseudonym is known here.
    """
    return [_shown(settings, person) for person in _everybody(settings)]


def remove_person(settings: Settings, email: str) -> bool:
    """End somebody's token and membership; False when there is no such account.

    Raises:
        StudioError: another machine made the account, and has the token that must end.
    """
    from annotation.label_studio import users

    if _elsewhere(settings, email) is not None:
        raise _made_elsewhere(email)
    with client_of(settings) as client:
        removed = users.remove(client, settings.place.studio, email)
    roster.share(settings, _own_entries(settings))
    return removed


def pseudonym_of(settings: Settings, person: Person) -> str:
    """The name a person goes by in tables and releases."""
    return person.rater_id or pseudonym(person.kind, settings.place.salt(), person.email)


def _everybody(settings: Settings) -> list[Person]:
    """Accounts made here, and after them those made by other machines, without their address."""
    from annotation.label_studio import users

    own = users.list_people(settings.place.studio)
    names = {pseudonym_of(settings, person) for person in own}
    others = [entry for entry in roster.entries(settings) if entry.rater_id not in names]
    return own + [_person(entry) for entry in others]


def _elsewhere(settings: Settings, email: str) -> Person | None:
    """The account of an address that another machine made, if there is one."""
    from annotation.label_studio.users import KINDS

    address, salt = email.strip().lower(), settings.place.salt()
    names = {pseudonym(kind, salt, address) for kind in KINDS}
    own = {entry.rater_id for entry in _own_entries(settings)}
    found = [one for one in roster.entries(settings) if one.rater_id in names - own]
    return _person(found[0]) if found else None


def _made_elsewhere(email: str) -> StudioError:
    return StudioError(
        "an account that this machine made",
        got=f"{email}, whose token another machine keeps",
        hint="run the same command on that machine; its people.json names the account",
    )


def _person(entry: roster.Entry) -> Person:
    from annotation.label_studio.users import Person

    return Person(
        email="", user_id=entry.user_id, kind=entry.kind, removed=entry.removed, token="",
        password="", subject=entry.subject, rater_id=entry.rater_id,
    )  # fmt: skip


def _own_entries(settings: Settings) -> list[roster.Entry]:
    from annotation.label_studio import users

    every = users.list_people(settings.place.studio)
    return [_entry(settings, one) for one in every if one.url == roster.url_of(settings)]


def _entry(settings: Settings, person: Person) -> roster.Entry:
    return roster.Entry(
        rater_id=pseudonym_of(settings, person),
        url=person.url,
        user_id=person.user_id,
        kind=person.kind,
        removed=person.removed,
        subject=person.subject,
    )


def _shown(settings: Settings, person: Person) -> dict[str, str]:
    filmed = person.kind == "self"
    return {
        "email": person.email,
        "rater_id": pseudonym_of(settings, person),
        "kind": person.kind,
        "state": "removed" if person.removed else "active",
        **({"subject": person.subject or "none: add again with --subject"} if filmed else {}),
    }
