"""Secrets out of any text that people or files may see: the one place that knows their shapes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping

MASK = "***"

_NAMES = re.compile(
    r"(?i)(^|_)(API_?KEY|TOKEN|SECRET(_ACCESS)?(_KEY)?|PASSWORD|PASSWD|PGPASSWORD|CREDENTIALS?)$"
)
"""Names of variables whose value is a secret."""

_SHORTEST = 6
"""A shorter value would be found in words that are none."""

_remembered: set[str] = set()

_LOGIN = re.compile(r"(?<=//)[^/\s@'\"]+@")
_SHAPES = re.compile(
    r"\b[0-9a-f]{40}\b"  # Label Studio's own tokens
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]+"  # JSON web tokens, Label Studio's personal kind
    r"|\bhf_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|(?<=X-Amz-Signature=)[0-9a-f]+|(?<=X-Amz-Security-Token=)[^&\s]+"  # presigned URLs
    r"|(?i:(?<=authorization: )(?:token|bearer|basic) \S+)"
    r"|(?i:(?<=password=)|(?<=passwd=)|(?<=secret=))[^\s&;,'\"]+"
)


def mask(text: str, *secrets: str) -> str:
    """``text`` without ``secrets``, without those that were remembered or that the environment
    holds, without logins in URLs, and without anything shaped like a token."""
    known = {*secrets, *_remembered, *held(os.environ)}
    # As it is, and as a message quotes it.
    spelt = known | {repr(secret)[1:-1] for secret in known} | {_in_json(one) for one in known}
    for secret in sorted(spelt, key=len, reverse=True):
        if secret:
            text = text.replace(secret, MASK)
    return _LOGIN.sub(f"{MASK}@", _SHAPES.sub(MASK, text))


def remember(secret: str) -> None:
    """Mask a secret in this process from now on, which no variable holds: a settings file does."""
    if len(secret) >= _SHORTEST:
        _remembered.add(secret)


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def held(environment: Mapping[str, str]) -> set[str]:
    """Secrets among the values of an environment, by the names of the variables; of a database's
    URL its password."""
    found = set()
    for name, value in environment.items():
        if _NAMES.search(name) and len(value) >= _SHORTEST:
            found.add(value)
        elif "://" in value and (login := _LOGIN.search(value)):
            password = login[0].rstrip("@").partition(":")[2]
            found |= {password} if len(password) >= _SHORTEST else set()
    return found
