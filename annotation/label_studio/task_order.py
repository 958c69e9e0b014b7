"""An order of one's own for every annotator, so that tiredness does not fall on the same faces.

The server's "label all" stream hands out the face most others have answered, whatever sampling
the project names, so a second annotator walks in the first one's steps. A tab with an ordering of
its own is followed instead: each person gets one, and a link that opens it.
"""

from __future__ import annotations

from typing import Any

from annotation.label_studio.client import Client
from warehouse.ids import sha256_of

ORDERS = 8
"""Shuffles kept in every task; people share them in turns."""


def places(face_id: str) -> dict[str, str]:
    """Where a face stands in each of the shuffles: a key of the task's data to sort by."""
    return {_key(number): _place(face_id, number) for number in range(ORDERS)}


def own_orders(client: Client, project_id: int, people: list[str]) -> dict[str, str]:
    """The link that opens a project in the own order of each person; tabs are made when missing.

    Args:
        people: pseudonyms, which name the tabs; the first eight get eight different orders.

    Raises:
        StudioError: the server is away or refuses.
    """
    tabs = {_title(tab): tab["id"] for tab in client.read("/api/dm/views/", project=project_id)}
    links = {}
    for number, person in enumerate(sorted(people)):
        tab = tabs.get(person) or _make(client, project_id, person, number % ORDERS)
        links[person] = f"{client.url}/projects/{project_id}/data?tab={tab}&labeling=1"
    return links


def ordering_of(number: int) -> list[str]:
    """What a tab sorts by, to walk through shuffle ``number``."""
    return [f"tasks:data.{_key(number)}"]


def _make(client: Client, project_id: int, person: str, number: int) -> int:
    hidden = [f"tasks:data.{_key(each)}" for each in range(ORDERS)]
    data = {
        "title": person,
        "ordering": ordering_of(number),
        "filters": {"conjunction": "and", "items": []},
        "hiddenColumns": {"explore": hidden, "labeling": hidden},
    }
    return client.write("POST", "/api/dm/views/", {"project": project_id, "data": data})["id"]


def _title(tab: dict[str, Any]) -> str:
    return (tab.get("data") or {}).get("title") or ""


def _key(number: int) -> str:
    return f"order_{number + 1}"


def _place(face_id: str, number: int) -> str:
    return sha256_of([f"{number}|{face_id}".encode()])[:8]
