"""The Label Studio of a home: where it is, its projects, its people, its pictures."""

from pipeline.studio.changes import bell, hint_of, last_change
from pipeline.studio.media import bring, source_of
from pipeline.studio.people import (
    add_person,
    filmed,
    list_people,
    pseudonym_of,
    rater_of,
    remove_person,
    title_of,
)
from pipeline.studio.project import (
    all_projects,
    ensure,
    page_of,
    projects,
    restore_configs,
    session,
)
from pipeline.studio.reading import tried
from pipeline.studio.server import address, client_of, down, login, status
from pipeline.studio.simulating import simulate

__all__ = [
    "add_person",
    "address",
    "all_projects",
    "bell",
    "bring",
    "client_of",
    "down",
    "ensure",
    "filmed",
    "hint_of",
    "last_change",
    "list_people",
    "login",
    "page_of",
    "projects",
    "pseudonym_of",
    "rater_of",
    "remove_person",
    "restore_configs",
    "session",
    "simulate",
    "source_of",
    "status",
    "title_of",
    "tried",
]
