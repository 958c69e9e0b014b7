"""Mask secrets in text that users or files may see.

Three kinds of secrets are found: values of environment variables with a name such as ``*_TOKEN``,
secrets given to ``remember``, and text of a known shape. The first two are found in their encoded
forms too: percent-encoded, base64, hexadecimal, as JSON or ``repr`` quotes them, and broken over
two lines.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import lru_cache
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus, urlsplit, urlunsplit

MASK = "***"

_WORDS = re.compile(
    r"(?i)(?:^|[_.\-])(?:"
    r"KEYS?|PATS?|AUTH(?:ORI[SZ]ATION)?|PW|PASS(?!ENGER|IVE|THROUGH|ED$)\w*|CREDENTIALS?|CREDS?"
    r"|CONN(?:ECTION)?_?STR(?:ING)?|DSN|WEBHOOKS?|COOKIES?|SAS|SIGNATURE|SALT|BEARER|JWT"
    r")(?=$|[_.\-])"
    # These also end a longer word: PGPASSWORD, GITHUBTOKEN.
    r"|(?:TOKENS?|SECRETS?|PASSWORDS?|PASSWDS?|PASSPHRASES?|PASSCODES?|APIKEYS?|ACCESSKEYS?)"
    r"(?=$|[_.\-])"
    r"|(?:[_.\-]|^MYSQL|^PG)PWD(?=$|[_.\-])"
)
"""Words in names of environment variables whose value is a secret."""

_ABOUT = re.compile(
    r"(?i)[_.\-](?:FILE|PATH|DIR|FOLDER|SOCK|SOCKET|PROGRAM|COMMAND|TYPE|METHOD|MODE|BACKEND|TTL"
    r"|TIMEOUT|EXPIRY|LENGTH|SIZE|ENABLED|DISABLED|REQUIRED|HOST|PORT|REGION|NAME|USER|VERSION"
    r"|ALGORITHM|PARALLELISM|URL|URI|ENDPOINT|ISSUER)$"
)
"""Endings of names that say something about a secret, as in ``SSH_AUTH_SOCK``."""

_ADDRESS = re.compile(r"(?i)WEBHOOK|(?:^|_)DSN(?:_|$)")
"""Names of addresses that are secret as a whole."""

_ORDINARY = frozenset(
    ("default", "disable", "disabled", "enable", "enabled", "required", "optional", "production",
     "development", "staging", "system", "keyring", "keychain", "prompt", "always", "anonymous",
     "localhost", "github", "gitlab", "google", "bearer", "digest", "negotiate")
)  # fmt: skip
"""Values of such variables that are words of settings, not secrets."""

_MIN_LENGTH = 6
"""Shorter values also occur inside ordinary words."""

_MIN_ENCODED = 8
"""Shorter encoded forms also occur by chance."""

_KEY = (
    r"(?:token|secret|passw(?:or)?d|passphrase|pwd|api_?-?key|access_?-?key|account_?-?key"
    r"|private_?-?key|signature|credentials?)"
)
"""End of the name of a field or parameter whose value is a secret."""

_QUERY_KEY = r"(?:sig|auth|authorization|sas|jwt|x-amz-[\w\-]+|x-goog-[\w\-]+)"
"""Names of other secret parameters in the query of a URL."""

_UNCLEAR_KEY = r"(?:key|code|hash|hmac)"
_RANDOM = r"(?=\S*\d)(?=\S*[A-Za-z])[\w\-~+=]{16,}"
"""``?key=`` names a file in one place and is a password in another: its value decides."""

_LOGIN = re.compile(
    # A password may hold an unescaped slash or at sign, but `host:8080/` is no login. The lengths
    # keep the time linear.
    r"(?<=//)(?:[^\s/@:'\"<>]{0,256}:(?!\d*(?:[/?#]|$))[^\s'\"<>]{0,512}?|[^\s/@:'\"<>]{1,512})@"
    r"(?=[\w.\-\[\]:]*(?:[/?#\s'\"<>(),;*]|$))"
)
_SHAPES = {
    "-----begin": r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*KEY-----|\Z)",
    "": r"\b[0-9a-f]{40}\b",  # Label Studio's own tokens
    "eyj": r"\beyJ[\w-]+\.[\w-]+\.[\w-]+",  # JSON web tokens, Label Studio's personal kind
    "hf_": r"\bhf_[A-Za-z0-9]{16,}",  # Hugging Face
    "gh": r"\bgh[opsur]_[A-Za-z0-9]{16,}",  # GitHub
    "github_pat_": r"\bgithub_pat_\w{16,}",
    "glpat-": r"\bglpat-[\w\-]{16,}",  # GitLab
    "xox": r"\bxox[a-z]-[\w\-]{10,}",  # Slack
    "hooks.slack": r"(?<=hooks\.slack\.com/services/)[\w/]+",
    "sk-": r"\bsk-[\w\-]{20,}",  # OpenAI
    "aiza": r"\bAIza[\w\-]{30,}",  # Google
    "akia": r"\bAKIA[A-Z0-9]{16}\b",  # Amazon
    "asia": r"\bASIA[A-Z0-9]{16}\b",
    "authorization: ": r"(?i:(?<=authorization: )(?:token|bearer|basic) \S+)",
    "bearer ": r"(?i:(?<=\bbearer ))[\w.~+/\-]{16,}=*",
    "basic ": r"(?i:(?<=\bbasic ))[\w.~+/\-]{16,}=*",
}
"""Text that holds the key, in lower case, is searched for the pattern."""

_PARAMETER = re.compile(
    rf"(?i)([?&;#]{_QUERY_KEY}=)[^&;#\s'\"<>]+|([?&;#]{_UNCLEAR_KEY}=){_RANDOM}"
)
_FIELD = re.compile(
    rf"(?i)({_KEY}\s?=\s?)(?:\"[^\"]+\"|'[^']+'|[^\s&;,'\"<>]+)"
    rf"|({_KEY}[\"']\s?:\s?[\"'])[^\"']+(?=[\"'])"
)
_BREAK = re.compile(r"[ \t\r]*\n[ \t]*")

_remembered: set[str] = set()


def mask(text: str, *secrets: str) -> str:
    """Replace secrets, logins in URLs and tokens in ``text`` by ``***``.

    Known secrets are those given to ``remember`` and those in environment variables.
    """
    forms = _forms_of(frozenset({*secrets, *_remembered, *secrets_in(os.environ)}))
    # One pattern of all forms would be slower by far: it tries each of them at each character.
    for form in forms:
        text = text.replace(form, MASK)
    text = _mask_broken(text, forms)
    lower = text.lower()
    for hint, shape in _SHAPES.items():
        if hint in lower:
            text = re.sub(shape, MASK, text)
    text = _FIELD.sub(_keep_name, _PARAMETER.sub(_keep_name, text))
    return _LOGIN.sub(f"{MASK}@", text)


def remember(secret: str) -> None:
    """Mask a secret from a settings file in this process from now on."""
    if len(secret) >= _MIN_LENGTH:
        _remembered.add(secret)


def secrets_in(environment: Mapping[str, str]) -> set[str]:
    """Return secret values, logins of URLs and fields of connection strings."""
    return set(_secrets_of(tuple(environment.items())))


def public_url(address: str) -> str:
    """Return a URL without login and without secret parameters.

    Other parameters stay: they say which file it is.
    """
    if "://" not in address:
        return address
    try:
        parts = urlsplit(address)
    except ValueError:  # a half of a bracketed host
        return _LOGIN.sub("", _PARAMETER.sub("", address))
    query = "&".join(
        one for one in parts.query.split("&")
        if not _is_secret(*map(unquote_plus, one.partition("=")[::2]))
    )  # fmt: skip
    fragment = "" if "=" in parts.fragment else parts.fragment
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, query, fragment))


@lru_cache(maxsize=8)
def _secrets_of(environment: tuple[tuple[str, str], ...]) -> frozenset[str]:
    found: set[str] = set()
    for name, value in environment:
        secret = _WORDS.search(name) and not _ABOUT.search(name)
        if (secret or _ADDRESS.search(name)) and value.lower() not in _ORDINARY:
            found |= {value, *_inside(value)}
        found.update(_logins(value))
        found.update(_fields(value))
    return frozenset(secret for secret in found if len(secret) >= _MIN_LENGTH)


def _inside(value: str) -> Iterator[str]:
    """Yield what an error may show of a secret value: lines, parts, texts."""
    if "\n" in value:
        yield from (line for line in value.splitlines() if len(line) >= 16)
    user, colon, password = value.partition(":")
    if colon and not re.search(r"[\s/{\"]", user):
        yield password
    if value.lstrip().startswith(("{", "[")):
        try:
            yield from _texts(json.loads(value))
        except ValueError:
            return


def _texts(document: object) -> Iterator[str]:
    if isinstance(document, str) and len(document) >= 16:
        yield document
    elif isinstance(document, dict | list):
        for item in document.values() if isinstance(document, dict) else document:
            yield from _texts(item)


def _logins(value: str) -> Iterator[str]:
    """Yield the passwords, and the tokens in place of a user, of URLs."""
    if "://" not in value:
        return
    for login in _LOGIN.findall(value):
        user, colon, password = login[:-1].partition(":")
        yield from (password, unquote(password))
        if not colon or len(user) >= 20:
            yield from (user, unquote(user))
    for query in re.findall(r"\?([^\s#'\"<>]+)", value):
        for name, text in parse_qsl(query):
            if _is_secret(name, text):
                yield text


def _is_secret(name: str, value: str) -> bool:
    """Return whether a parameter of a query is a secret."""
    if re.fullmatch(rf"(?i){_UNCLEAR_KEY}", name):
        return bool(re.fullmatch(_RANDOM, value))
    return bool(re.fullmatch(rf"(?i).*{_KEY}|{_QUERY_KEY}", name))


def _fields(value: str) -> Iterator[str]:
    """Yield the secrets of a connection string: ``Uid=me;Pwd=word``."""
    if "=" in value:
        for text in re.findall(
            rf"(?i)(?:^|[;\s&?])[\w ]*{_KEY}\s?=\s?('[^']*'|\"[^\"]*\"|[^;\s&]+)", value
        ):
            yield text.strip("'\"")


@lru_cache(maxsize=8)
def _forms_of(known: frozenset[str]) -> tuple[str, ...]:
    """Return all secrets in all forms, the longest first."""
    forms = {form for secret in known if secret for form in _forms(secret)}
    return tuple(sorted(forms, key=lambda form: (-len(form), form)))


@lru_cache(maxsize=256)
def _forms(secret: str) -> frozenset[str]:
    quoted = {repr(secret)[1:-1], *_in_json(secret)}
    escaped = {quote(secret, safe=safe) for safe in ("", "/", "/:@")} | {quote_plus(secret)}
    # Upper and lower case of the digits, and encoded twice.
    escaped |= {re.sub(r"%..", lambda code: code[0].lower(), form) for form in escaped}
    escaped |= {form.replace("%", "%25") for form in escaped}
    data = secret.encode(errors="surrogateescape")
    codes = {data.hex(), data.hex().upper(), *_in_base64(data)}
    long = {code for code in codes if len(code) >= _MIN_ENCODED}
    return frozenset({secret, *quoted, *escaped, html.escape(secret), *long})


def _in_json(text: str) -> Iterator[str]:
    for ascii_only in (True, False):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield from (once, once.replace("/", "\\/"), json.dumps(once)[1:-1])


def _in_base64(data: bytes) -> Iterator[str]:
    """Yield the base64 of ``data`` alone and at any place of other bytes.

    At another place it begins at another bit: the characters that the bytes beside it share are
    left out.
    """
    for code in (base64.b64encode, base64.urlsafe_b64encode):
        yield code(data).decode()
        for shift in range(3):
            text = code(bytes(shift) + data).decode().rstrip("=")
            shared = (shift + len(data)) % 3 != 0
            yield text[(0, 2, 3)[shift] : len(text) - shared]


def _mask_broken(text: str, forms: tuple[str, ...]) -> str:
    """Mask secrets that a line break splits."""
    pieces, starts, lengths, last, length = [], [], [], 0, 0
    for found in _BREAK.finditer(text):
        pieces.append(text[last : found.start()])
        starts.append(last)
        lengths.append(length)
        length += found.start() - last
        last = found.end()
    if not pieces:
        return text
    joined = "".join([*pieces, text[last:]])
    starts, lengths = [*starts, last], [*lengths, length]

    def place(index: int) -> int:
        piece = bisect_right(lengths, index) - 1
        return starts[piece] + index - lengths[piece]

    spans = [
        (place(found.start()), place(found.end() - 1) + 1)
        for form in forms if form in joined
        for found in re.finditer(re.escape(form), joined)
    ]  # fmt: skip
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + MASK + text[end:]
    return text


def _keep_name(found: re.Match[str]) -> str:
    return f"{next(filter(None, found.groups()))}{MASK}"
