"""Secrets out of any text that people or files may see: the one place that knows their shapes."""

from __future__ import annotations

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
    """``text`` without ``secrets``, without those that the environment holds, without logins in
    URLs, and without anything shaped like a token."""
    for secret in sorted({*secrets, *held(os.environ)}, key=len, reverse=True):
        if secret:
            text = text.replace(secret, MASK)
    return _LOGIN.sub(f"{MASK}@", _SHAPES.sub(MASK, text))


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
