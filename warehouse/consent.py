"""Read statements of consent: what permits, what refuses, until when.

The reading is closed: a statement permits only if every word of it is known. What is not
understood stays out of every release until a person says what it means.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.resources import files
from itertools import permutations

from warehouse.licences import PUBLIC

JOIN = " | "
"""Between the statements of several copies of a file; all of them hold."""

REASONS = (
    "consent_withdrawn", "consent_unreadable", "consent_expired", "consent_scope", "consent_ends",
    "consent_unstated",
)  # fmt: skip

GRANTS = ("editing", "generative")
"""Edits of the face, and the training of face generators."""

Days = tuple[date, ...]
"""The days that a date may mean: ``1/2/2027`` is one of two, ``2027`` one of a year."""


@dataclass(frozen=True)
class Statement:
    """One statement of consent.

    Attributes:
        refused: consent was refused, withdrawn, is pending or unknown.
        unreadable: the statement is not understood.
        since: first days on which it holds.
        until: last days on which it holds.
        bare: dates that are not said to be a first or last day.
        scopes: uses it is limited to; empty if it names none.
        grants: uses of ``GRANTS`` that it names; they are never implied.
        stated: there is a statement.
    """

    refused: bool = False
    unreadable: bool = False
    since: tuple[Days, ...] = ()
    until: tuple[Days, ...] = ()
    bare: tuple[Days, ...] = ()
    scopes: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()
    stated: bool = True

    def refusal(self, *, use: str | None, today: date) -> str | None:
        """Return the reason code that excludes a row today, or None."""
        if self.refused:
            return "consent_withdrawn"
        if self.unreadable or any(max(days) > today for days in self.since):
            return "consent_unreadable"
        if any(max(days) < today for days in (*self.until, *self.bare)):
            return "consent_expired"
        if self.bare or any(min(days) < today for days in self.until):
            return "consent_unreadable"  # a first or a last day? one reading of it is past
        if use is not None and self.scopes and use not in self.scopes:
            return "consent_scope"
        if use == PUBLIC and self.until:
            return "consent_ends"  # what is public cannot be recalled on that day
        return None

    @property
    def is_limited(self) -> bool:
        """Whether it is anything but a plain yes."""
        return self != Statement()


@dataclass(frozen=True)
class Consent:
    """What is said of a video: one statement, or those of several copies."""

    statements: tuple[Statement, ...]

    @property
    def stated(self) -> bool:
        """Whether anything is said."""
        return any(one.stated for one in self.statements)

    def refusal(self, *, use: str | None, today: date, required: bool = False) -> str | None:
        """Return the reason code that excludes a row today, or None.

        Args:
            use: one of ``licences.USES``, or None if no use is declared.
            required: also exclude a row without a statement.
        """
        if required and not self.stated:
            return "consent_unstated"
        found = {one.refusal(use=use, today=today) for one in self.statements}
        return next((reason for reason in REASONS if reason in found), None)

    def is_unreadable(self, *, today: date | None = None) -> bool:
        """Return whether there is a statement that is not understood."""
        return self.refusal(use=None, today=today or _today()) == "consent_unreadable"

    def permits_editing(self, *, today: date | None = None) -> bool:
        """Return whether the face may be edited today (``yes, editing``)."""
        return self._grants("editing", today)

    def permits_training(self, *, today: date | None = None) -> bool:
        """Return whether a face generator may be trained on it today."""
        return self._grants("generative", today)

    def _grants(self, name: str, today: date | None) -> bool:
        if self.refusal(use=None, today=today or _today()) is not None:
            return False
        return self.stated and all(name in one.grants for one in self.statements if one.stated)


def parse(text: str | None) -> Consent:
    """Parse ``yes``, ``research until 2027-12-31``, ``withdrawn`` and so on.

    A scope is a limit: ``research`` alone does not permit commercial use. The statements of
    copies are joined with ``JOIN``.
    """
    return Consent(tuple(_parse(part) for part in (text or "").split(JOIN.strip())))


def unreadable(stated: Iterable[tuple[str, str | None]]) -> dict[str, list[str]]:
    """Return the statements that are not understood, with their files.

    Args:
        stated: file and statement.
    """
    files: dict[str, list[str]] = {}
    for file, text in stated:
        files.setdefault(text or "", []).append(file)
    return {text: named for text, named in files.items() if parse(text).is_unreadable()}


def strictest(texts: Iterable[str | None]) -> str | None:
    """Return one text under which only what every text permits is permitted.

    A refusal stands alone. A plain yes adds nothing to a limit, but takes from a grant.
    Texts without a statement are ignored; None if no text states anything.
    """
    parts = dict.fromkeys(
        part.strip() for text in texts for part in (text or "").split(JOIN.strip())
    )
    read = {part: _parse(part) for part in parts}
    stated = sorted(part for part, consent in read.items() if consent.stated)
    refused = [part for part in stated if read[part].refused]
    limited = [part for part in stated if read[part].is_limited]
    if any(read[part].grants for part in limited):
        limited = stated
    if refused:
        return refused[0]
    return JOIN.join(limited) or next(iter(stated), None)


_WORDS = tomllib.loads(files(__package__).joinpath("consent_words.toml").read_text("utf-8"))


def _words(name: str) -> frozenset[str]:
    return frozenset(_WORDS[name].split())


_PLAIN_YES, _PLAIN_NO = _words("plain_yes"), _words("plain_no")
_YES, _GIVING = _words("yes"), _words("giving")
_REFUSING, _NEGATIONS, _NO_REFUSAL = _words("refusing"), _words("negations"), _words("no_refusal")
_UNTIL, _BEFORE_A_DATE, _SINCE = _words("until"), _words("before_a_date"), _words("since")
_GRANTS = {name: frozenset(words.split()) for name, words in _WORDS["grants"].items()}
_PERMISSION = _words("permission")
_UNLESS, _ONLY, _AUXILIARIES = _words("unless"), _words("only"), _words("auxiliaries")
_FILLERS = _words("fillers")
_SCOPES = {
    word: (PUBLIC, "research") if scope == PUBLIC else (scope,)
    for scope, words in _WORDS["scopes"].items()
    for word in words.split()
}
_KNOWN: frozenset[str] = frozenset().union(
    _YES,
    _SCOPES,
    _FILLERS,
    _UNTIL,
    _BEFORE_A_DATE,
    _SINCE,
    _ONLY,
    _PERMISSION,
    *_GRANTS.values(),
    {"dated"},
)

_PHRASES = (
    # "yes, no editing": a grant that is refused is none; the rest still holds.
    (r"\b(?:no|not|non|never|without|except|excluding|excludes?)\b[^,;.|]*?"
     r"\b(?:edit(?:s|ed|ing)?|generative|synthesis)\b(?:\s+training)?", " "),
    (r"\bopt(?:ed|s|ing)?[\s-]*out\b", " optout "),
    (r"\bopt(?:ed|s|ing)?[\s-]*in\b", " optin "),
    (r"\b(?:non?|not|nicht|niet|nao)[\s-]*(?:for\s+)?(?:commercial|kommerziell|comercial"
     r"|commercieel)\w*(?:\s+uses?)?\b", " noncommercial "),
    (r"\bnon[\s-]*consent\w*\b", " nonconsent "),
    (r"\bon\s+file\b", " onfile "),
    # "to be signed", "used to be yes": not now.
    (r"\bto\s+be\b", " pending "),
    (r"\bsubject\s+to\b", " conditional "),
    (r"\bliegt\s+vor\b", " liegtvor "),
    (r"(?<=[^\W\d_])['’](?=[^\W\d_])", ""),
    # The number of a form says nothing about consent.
    (r"(?:\b(?:form|sheet|nr|number|nummer|id|ref|version|page)\b|\bno\.)[\s.:#]*"
     r"(?!\d{1,4}[-./]\d)[a-z]{0,3}-?\d[\w-]*", " form "),
)  # fmt: skip

_MONTHS = {
    word: number for number, words in enumerate(_WORDS["months"], start=1) for word in words.split()
}
_MONTH = r"(?P<month>" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\b\.?"
_DATE = re.compile(
    r"(?<![\w.])(?:"
    r"(?P<iso>\d{4}[-/.]\d{1,2}[-/.]\d{1,2})(?:[t\s]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?"
    r"\s*(?:z|utc|[+-]\d{2}:?\d{2})?)?"
    r"|(?P<compact>20\d{6})"
    r"|(?P<cjk>\d{4}\s*年\s*\d{1,2}\s*月(?:\s*\d{1,2}\s*日)?)"
    r"|(?P<dots>\d{1,2}\.\s?\d{1,2}\.\s?(?:\d{4}|\d{2}))"
    r"|(?P<slash>\d{1,2}[-/]\d{1,2}[-/](?:\d{4}|\d{2}))"
    r"|(?P<year_month>\d{4}[-/]\d{1,2})"
    r"|(?P<month_year>\d{1,2}[-/]\d{4})"
    rf"|(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th|er|\.|º)?\s*(?:of\s+|de\s+|di\s+)?)?{_MONTH}"
    r"(?:\s*(?P<day2>\d{1,2})(?:st|nd|rd|th)?(?!\d),?)?\s*,?\s*(?:of\s+|de\s+|del\s+|do\s+)?"
    r"(?P<year_of_month>\d{4})"
    r"|(?P<year>(?:19|20)\d{2})"
    r")(?:(?!\w)|(?=まで|迄|止))"
)
_TOKEN = re.compile(r"\x00\d+\x00|[^\W_]+")
_SEPARATORS = re.compile(r"[\s,.;:()\[\]/_\-–—'\"!+=&]*")
_MAX_CHARS = 500


def _parse(text: str) -> Statement:
    if len(text.strip()) > _MAX_CHARS:
        return Statement(unreadable=True)
    line = _folded(text)
    if not line:
        return Statement(stated=False)
    compact = line.replace(" ", "").rstrip(".!")
    if compact in _PLAIN_YES:
        return Statement()
    if compact in _PLAIN_NO:
        return Statement(refused=True)
    for pattern, plain in _PHRASES:
        line = re.sub(pattern, plain, line)
    dates: list[Days] = []

    def keep(found: re.Match[str]) -> str:
        dates.append(_days(found))
        return f" \x00{len(dates) - 1}\x00 "

    marked = _DATE.sub(keep, line)
    tokens = _TOKEN.findall(marked)
    if _refuses(tokens):
        return Statement(refused=True)
    strange = _SEPARATORS.sub("", _TOKEN.sub("", marked))
    words = [token for token in tokens if token[0] != "\0"]
    if not tokens or strange or set(words) - _KNOWN or any(not days for days in dates):
        return Statement(unreadable=True)
    scopes = tuple(dict.fromkeys(scope for word in words for scope in _SCOPES.get(word, ())))
    roles = _roles(tokens)
    bare = [dates[number] for number, role in roles.items() if role == "bare"]
    since = [dates[number] for number, role in roles.items() if role == "since"]
    until = [dates[number] for number, role in roles.items() if role == "until"]
    if len(bare) == 2 and max(bare[0]) < min(bare[1]):  # from one day to another
        since, until, bare = [*since, bare[0]], [*until, bare[1]], []
    # An end without a day, or "only" without a use, says something that is not understood.
    open_end = (set(words) & _UNTIL and not until) or tokens[-1] in _BEFORE_A_DATE
    only = set(words) & _ONLY and not scopes
    grants = tuple(one for one in GRANTS if set(words) & _GRANTS[one])
    maybe = set(words) & _PERMISSION and not grants
    says_yes = set(words) & _YES or scopes or until or bare
    if open_end or only or maybe or not (says_yes or grants):
        return Statement(unreadable=True)
    return Statement(
        since=tuple(since),
        until=tuple(until),
        bare=tuple(bare),
        scopes=scopes if says_yes else grants,
        grants=grants,
    )


def _folded(text: str) -> str:
    """Return text in lower case, without accents, marks of order and controls."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    kept = "".join(
        " " if unicodedata.category(one) in ("Cc", "Zs", "Zl", "Zp") else one
        for one in plain
        if unicodedata.category(one) != "Cf" and not "\u0300" <= one <= "\u036f"
        and one not in "\ufe0e\ufe0f"
    )  # fmt: skip
    # Back to one character per syllable and kana, as the tables above are written.
    return " ".join(unicodedata.normalize("NFC", kept).replace("ł", "l").split()).strip("'\"“”„`")


def _refuses(tokens: list[str]) -> bool:
    """Return whether a word refuses, alone or by negating another."""
    for at, token in enumerate(tokens):
        before = set(tokens[max(0, at - 3) : at])
        if token in _REFUSING:
            # "not withdrawn", "until revoked": no refusal, and not a plain yes.
            return not before & (_NEGATIONS | _UNTIL | _UNLESS)
    own = [token for token in tokens if token not in _FILLERS | _AUXILIARIES]
    return bool(own) and own[0] in _NEGATIONS and not set(tokens) & _NO_REFUSAL


def _roles(tokens: list[str]) -> dict[int, str]:
    """Return for each date what the words before it make it."""
    roles: dict[int, str] = {}
    for at, token in enumerate(tokens):
        if token[0] != "\0":
            continue
        before = list(reversed(tokens[:at]))
        after = tokens[at + 1] if at + 1 < len(tokens) else ""
        role = "bare"
        if (before and before[0] in _BEFORE_A_DATE) or after in ("まで", "迄", "止"):
            role = "until"
        for word in before if role == "bare" else ():
            if word in _UNTIL or word in _SINCE or word in _GIVING:
                role = "until" if word in _UNTIL else "since"
            if word not in _FILLERS:
                break
        roles[int(token.strip("\0"))] = role
    return roles


def _today() -> date:
    return datetime.now(UTC).date()


def _days(found: re.Match[str]) -> Days:
    """Return the days that a date may mean, in order; empty if there is none."""
    given = {name: value for name, value in found.groupdict().items() if value}
    if "month" in given:
        month, year = _MONTHS[given["month"]], int(given["year_of_month"])
        day = given.get("day") or given.get("day2")
        return _valid([(year, month, int(day))]) if day else _month(year, month)
    kind, value = next(iter(given.items()))
    parts = [int(part) for part in re.findall(r"\d+", value)]
    if kind == "year":
        return _valid([(parts[0], 1, 1), (parts[0], 12, 31)])
    if kind == "compact":
        return _valid([(int(value[:4]), int(value[4:6]), int(value[6:]))])
    if kind == "month_year":
        parts.reverse()
    if len(parts) == 2:
        return _month(*parts)
    if kind in ("iso", "cjk"):
        return _valid([(parts[0], parts[1], parts[2])])
    day, month, year = parts
    if year > 99:
        orders = [(year, month, day)] + ([(year, day, month)] if kind == "slash" else [])
        return _valid(orders)
    return _valid([(2000 + y, m, d) for y, m, d in permutations(parts)])


def _month(year: int, month: int) -> Days:
    return _valid((year, month, day) for day in (1, 28, 29, 30, 31))


def _valid(parts: Iterable[tuple[int, int, int]]) -> Days:
    days = set()
    for year, month, day in parts:
        try:
            days.add(date(year, month, day))
        except ValueError:
            continue
    return tuple(sorted(days))
