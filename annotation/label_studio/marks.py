"""How a project is recognised: a mark in its description, for titles are not unique."""

from __future__ import annotations

import re
from dataclasses import dataclass

from annotation.label_studio.labeling_config import fingerprint, labeling_config
from annotation.label_studio.page import LABEL_SETS, Page
from warehouse.ids import sha256_of

_SHOWN = " predictions shown"
_MARK = re.compile(r"\[risorius ([0-9a-f]{12}) ([0-9a-f]{8})(?: round (\d+))?\]")
_ALIAS = re.compile(r'alias="([^"]*)"')


@dataclass(frozen=True)
class Mark:
    """What a project is for: the fingerprint of its page, the hash of its owner, its round."""

    page: str
    owner: str
    round: int = 1

    def __str__(self) -> str:
        rounds = f" round {self.round}" if self.round > 1 else ""
        return f"[risorius {self.page} {self.owner}{rounds}]"

    def fits(self, config: str) -> bool:
        """Whether a stored labeling config is the one that the project was made with."""
        return self.page in (fingerprint(config), fingerprint(config + _SHOWN))


def read_mark(description: str) -> Mark | None:
    """The mark in a project's description, if it is one of ours."""
    found = _MARK.search(description)
    return Mark(found[1], found[2], int(found[3] or 1)) if found else None


def page_fingerprint(page: Page) -> str:
    """Twelve hex digits that name what is asked and what is shown beside it."""
    # A prediction beside the questions changes what a vote means just as they do.
    return fingerprint(labeling_config(page) + (_SHOWN if page.predictions else ""))


def owner_hash(owner: str, title: str) -> str:
    """Eight hex digits that tell homes and titles apart."""
    return sha256_of([owner.encode(), title.encode()])[:8]


def label_set_of(config: str) -> str:
    """Which labels a stored config asks for, told by its choices; also of an edited one."""
    offered = set(_ALIAS.findall(config))
    for name, options in LABEL_SETS.items():
        if name != "expressions" and {option.alias for option in options} <= offered:
            return name
    return "expressions"
