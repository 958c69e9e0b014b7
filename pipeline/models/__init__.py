"""Model packs and their licences: ``packs.add(home, packs.plan("buffalo_l"))``."""

from __future__ import annotations

from pipeline.models.download import ZOO, Plan, add, plan
from pipeline.models.registry import (
    TASKS,
    Pack,
    damaged,
    find,
    licence_of,
    listed,
    place_of,
    remove,
)

__all__ = [
    "TASKS",
    "ZOO",
    "Pack",
    "Plan",
    "add",
    "damaged",
    "find",
    "licence_of",
    "listed",
    "place_of",
    "plan",
    "remove",
]
