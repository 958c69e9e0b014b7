"""What a statement of consent permits: a closed reading."""

from __future__ import annotations

from datetime import date

import pytest

from warehouse import consent

TODAY = date(2026, 6, 1)

PERMIT = """
yes|Yes| YES |y|TRUE|True|1|1.0|ok|given|granted|signed|written|consented|has consented|opted in
consent given|informed consent signed|signed form 12|yes (no. 17)|yes, written consent on file
Signed 2024-03-01|given on 1 March 2024|signed 2024-01-01, valid until 2027-01-01
yes, no editing|yes; not for editing|may be edited|research, editing
research|research only|research and commercial|research (non-commercial)|yes, non-commercial
until 2027-12-31|yes, until: 2026-06-01.|expires=2027-01-01|valid to 31.12.2027|until 12/31/2027
until 31 December 2027|until Dec 2027|until December 31, 2027|until 2028|until 2027-12-31T00:00:00Z
valid from 2025-01-01 to 2030-01-01|2025-01-01 - 2030-01-01|bis 31.12.2027|jusqu'au 31/12/2027
hasta 2027-12-31|fino al 31.12.2027|até 31/12/2027|tot 2027-12-31|do 31.12.2027|2027年12月31日まで
ja|J|oui|sí|SÌ|sim|tak|是|同意|はい|あり|예|да|✓|✅|erteilt|Einwilligung liegt vor|d'accord|accordé
\u00a0yes\u00a0|\u200byes|ｙｅｓ|yes.|"yes"
"""

REFUSE = """
no|No|NO!|n|false|FALSE|0|0.0|none|not given|declined|opt-out|opted out|withdrew|withdrawn|rejected
pending|unknown|tbd|expired|expired 2020-01-01|invalid|unsigned|void|not consented|never signed
no consent|consent: no|does not consent|doesn't consent|has not consented|consent was not given
participant declined|no, mother called|given, then withdrawn 2025-01-01|revoked 3 May 2025
none recorded: sample clip|to be signed|consent to be obtained|used to be yes
nein|nicht erteilt|keine Einwilligung|non|pas donné|refusé|no otorgado|sin consentimiento|negato
não|sem consentimento|nee|niet gegeven|nie|brak zgody|否|不同意|いいえ|なし|нет|아니요|✗|❌
не согласен|отказ|撤回|過期|لا|नहीं
"""

UNREADABLE = """
N/A|n/a|-|—|?|...|nan|null|#N/A|maybe|x|2|45000|see notes|ask her|consent|verbal|form 12|☐
yes?|yes*|yes/no|y/n|yes no|partial|limited|conditional|with restrictions|yes, but blur the face
yes, except video|internal only|only|yes only
may be given|may|no objections|not required|not withdrawn|not declined
until revoked|yes unless withdrawn|until further notice|until 2026-13-01|until tomorrow|expires
yes, subject to parent consent|valid to
valid until|2027-12-31|from 2027-01-01|signed 2030-01-01|until 5/6/2026|yes 2030-01-01
"""

EXPIRED = """
2020-01-01|2020|until 31.12.2020|valid to 2020-01-01|yes until 2026-05-31|yes 2020-01-01
expires 05/31/2026|until May 2026|gültig bis 1.1.2020|jusqu'au 1 janvier 2020
"""


def wordings(text: str) -> list[str]:
    lines = text.encode("utf-8").decode("utf-8").strip("\n").replace("\n", "|")
    return [
        one.replace("\\u00a0", "\u00a0").replace("\\u200b", "\u200b") for one in lines.split("|")
    ]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (PERMIT, None),
        (REFUSE, "consent_withdrawn"),
        (UNREADABLE, "consent_unreadable"),
        (EXPIRED, "consent_expired"),
    ],
)
def test_consent__wordings(texts: str, reason: str | None) -> None:
    read = {text: consent.parse(text).refusal(use=None, today=TODAY) for text in wordings(texts)}
    assert {text: found for text, found in read.items() if found != reason} == {}


@pytest.mark.parametrize("text", [None, "", "  ", "\t", "\ufeff", "\u200b", "\u00a0"])
def test_consent__empty_cell_states_nothing(text: str | None) -> None:
    assert consent.parse(text).refusal(use="public", today=TODAY) is None
    assert consent.parse(text).refusal(use=None, today=TODAY, required=True) == "consent_unstated"


@pytest.mark.parametrize(
    ("text", "use", "reason"),
    [
        ("yes", "public", None),
        ("research until 2027-01-01", "research", None),
        ("research until 2027-01-01", "commercial", "consent_scope"),
        ("research", "public", "consent_scope"),
        ("yes, non-commercial", "commercial", "consent_scope"),
        ("not for commercial use, research", "commercial", "consent_scope"),
        ("yes for research, no for commercial", "commercial", "consent_scope"),
        ("research and commercial", "commercial", None),
        ("yes, may be published", "public", "consent_unreadable"),
        ("public", "public", None),
        ("yes until 2027-01-01", "public", "consent_ends"),
    ],
)
def test_consent__use(text: str, use: str, reason: str | None) -> None:
    assert consent.parse(text).refusal(use=use, today=TODAY) == reason


def test_consent__grants_of_copies_are_those_of_all() -> None:
    assert consent.parse("yes, editing").permits_editing(today=TODAY)
    both = consent.strictest(["yes, editing", "yes"])
    assert not consent.parse(both).permits_editing(today=TODAY)
    assert consent.parse(both).refusal(use=None, today=TODAY) is None


def test_consent__day_of_an_ambiguous_date() -> None:
    """5/6/2026 may be 6 May or 5 June."""
    read = [
        consent.parse("until 5/6/2026").refusal(use=None, today=date(2026, month, day))
        for month, day in ((5, 6), (5, 7), (6, 5), (6, 6))
    ]
    assert read == [None, "consent_unreadable", "consent_unreadable", "consent_expired"]


@pytest.mark.parametrize(
    ("texts", "one"),
    [
        (["yes", "no"], "no"),
        ([None, "yes", ""], "yes"),
        ([None, ""], None),
        (["until 2027-01-01", "yes", "research"], "research | until 2027-01-01"),
        (["maybe", "yes"], "maybe"),
        (["maybe", "withdrawn"], "withdrawn"),
        (["research | until 2027-01-01", "yes"], "research | until 2027-01-01"),
    ],
)
def test_consent__strictest_of_copies(texts: list[str | None], one: str | None) -> None:
    assert consent.strictest(texts) == one
    assert consent.strictest(reversed(texts)) == one


def test_consent__limits_of_copies_all_hold() -> None:
    both = consent.strictest(["research", "commercial until 2027-01-01"])
    for use in ("research", "commercial"):
        assert consent.parse(both).refusal(use=use, today=TODAY) == "consent_scope"
    assert consent.parse(both).refusal(use=None, today=date(2027, 1, 2)) == "consent_expired"


def test_consent__long_text_is_quick_and_unreadable() -> None:
    for text in ("yes " * 100_000, "1/" * 100_000, "until " * 50_000):
        assert consent.parse(text).is_unreadable(today=TODAY)
