"""What an answer that is no success means to the person who reads it."""

from __future__ import annotations

import json
import re

import httpx

from warehouse.errors import StudioError
from warehouse.masking import mask

_MEANING = {
    300: ("the address of Label Studio itself", "give the address it redirects to"),
    400: (
        "a request that Label Studio can use",
        "was the project changed by hand? else this is a bug of ours",
    ),
    401: (
        "an access token that Label Studio accepts",
        "make a new one in its account settings and set LABEL_STUDIO_API_KEY "
        "(a local server's own is in credentials.json of the home)",
    ),
    403: (
        "permission for this in Label Studio",
        "use the token of a member of the organization",
    ),
    404: (
        "what was asked for",
        "was it deleted by hand? `risorius label push` makes it anew",
    ),
    500: (
        "Label Studio to do what was asked",
        "read its log (server.log of the home) and try again",
    ),
}
"""Status code (or its hundred) to what was expected and what mends it."""

_NO_ANSWER = ("an answer of Label Studio in JSON", "check the address of the server")


def refusal(response: httpx.Response, *, url: str, token: str) -> StudioError:
    """The error behind a response: what was expected, what the server said, what to do next."""
    code, said = response.status_code, mask(_words(response), token)
    expected, hint = _MEANING.get(code) or _MEANING.get(code // 100 * 100, _NO_ANSWER)
    where = f"{response.request.method} {response.request.url.path}"
    return StudioError(f"{expected} at {url}", got=f"HTTP {code} for {where}: {said}", hint=hint)


def _words(response: httpx.Response) -> str:
    """What a refusal says in a few words: JSON detail, or the title of an HTML page."""
    try:
        body = response.json()
    except ValueError:
        title = re.search(r"<title>\s*(.*?)\s*</title>", response.text, re.DOTALL)
        return title.group(1)[:200] if title else response.reason_phrase or "no words"
    if isinstance(body, dict):
        body = body.get("validation_errors") or body.get("detail") or body
    return json.dumps(body)[:400] if not isinstance(body, str) else body[:400]
