"""What the people in a video agreed to, as ``videos.csv`` words it, and what follows from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

REFUSED = ("no", "withdrawn", "refused", "revoked", "denied")
"""A statement that begins with one of these words keeps its video out of every release."""

SCOPES = ("research", "commercial")

_EXPIRY = re.compile(r"\b(?:until|expires?|expiry)\b[\s:=]*(\S*)")
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Consent:
    """A statement of consent, read.

    Attributes:
        refused: said no, or took it back.
        until: the last day on which it holds, or None.
        scopes: uses it is limited to; empty where it names none.
        unreadable: it speaks of an end that is no date; nobody can say that it still holds.
    """

    refused: bool = False
    until: date | None = None
    scopes: tuple[str, ...] = ()
    unreadable: bool = False

    def against(self, *, use: str | None, today: date) -> str | None:
        """Why a row may not be released, as a reason code, or None.

        Args:
            use: ``commercial``, ``research`` or None for a use not declared.
            today: the day to judge on.
        """
        if self.refused:
            return "consent_withdrawn"
        if self.unreadable:
            return "consent_unreadable"
        if self.until is not None and today > self.until:
            return "consent_expired"
        if use is not None and self.scopes and use not in self.scopes:
            return "consent_scope"
        return None


REASONS = ("consent_withdrawn", "consent_unreadable", "consent_expired", "consent_scope")


def read(text: str | None) -> Consent:
    """The statement in a cell such as ``yes``, ``research until 2027-12-31`` or ``withdrawn``.

    An empty cell, or words of somebody's own, state no limit. A scope counts as a limit:
    ``research`` alone does not permit commercial use.
    """
    line = (text or "").strip().lower()
    words = _WORD.findall(line)
    if not words:
        return Consent()
    if words[0] in REFUSED:
        return Consent(refused=True)
    scopes = tuple(scope for scope in SCOPES if scope in words)
    found = _EXPIRY.search(line)
    if found is None:
        return Consent(scopes=scopes)
    try:
        return Consent(until=date.fromisoformat(found.group(1).rstrip(".,;)")), scopes=scopes)
    except ValueError:
        return Consent(scopes=scopes, unreadable=True)
