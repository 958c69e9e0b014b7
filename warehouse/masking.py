"""Mask secrets in text that users or files may see."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping

MASK = "***"

_NAMES = re.compile(
    r"(?i)(^|_)(API_?KEY|TOKEN|SECRET(_ACCESS)?(_KEY)?|PASSWORD|PASSWD|PGPASSWORD|CREDENTIALS?)$"
)
"""Names of environment variables whose value is a secret."""

_MIN_LENGTH = 6
"""Shorter values also occur inside ordinary words."""

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
    """Replace secrets, logins in URLs and tokens in ``text`` by ``***``.

    Known secrets are those given to ``remember`` and those in environment variables.
    """
    known = {*secrets, *_remembered, *secrets_in(os.environ)}
    # As it is, and as `repr` and JSON quote it.
    spelt = known | {repr(secret)[1:-1] for secret in known} | {_in_json(one) for one in known}
    for secret in sorted(spelt, key=len, reverse=True):
        if secret:
            text = text.replace(secret, MASK)
    return _LOGIN.sub(f"{MASK}@", _SHAPES.sub(MASK, text))


def remember(secret: str) -> None:
    """Mask a secret from a settings file in this process from now on."""
    if len(secret) >= _MIN_LENGTH:
        _remembered.add(secret)


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def secrets_in(environment: Mapping[str, str]) -> set[str]:
    """Return secret values and URL passwords in environment variables."""
    found = set()
    for name, value in environment.items():
        if _NAMES.search(name) and len(value) >= _MIN_LENGTH:
            found.add(value)
        elif "://" in value and (login := _LOGIN.search(value)):
            password = login[0].rstrip("@").partition(":")[2]
            found |= {password} if len(password) >= _MIN_LENGTH else set()
    return found
