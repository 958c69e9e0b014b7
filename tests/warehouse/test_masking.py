"""What counts as a secret, and that ordinary words do not."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable
from urllib.parse import quote

import pytest

from warehouse import masking
from warehouse.errors import StudioError
from warehouse.masking import mask, public_url, remember, secrets_in

HEX40 = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Token {HEX40} refused", "Token *** refused"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("a eyJhbGciOi.eyJzdWIi.c2ln b", "a *** b"),
        ("hf_AbCdEfGhIjKlMnOpQr is wrong", "*** is wrong"),
        ("postgresql://me:pass-word@db:5432/x", "postgresql://***@db:5432/x"),
        ("https://x/y?X-Amz-Signature=0aff&z=1", "https://x/y?X-Amz-Signature=***&z=1"),
        ("https://x/y?token=abc&id=5#top", "https://x/y?token=***&id=5#top"),
        ("https://x/y?sv=1&sig=a%2Bb", "https://x/y?sv=1&sig=***"),
        ("https://x/y?key=abcdefgh12345678", "https://x/y?key=***"),
        ("http://me:p/w@host:80/a", "http://***@host:80/a"),
        ("http://me:p@ss@host/a", "http://***@host/a"),
        ("https://tok@host/a, b", "https://***@host/a, b"),
        ('{"access_token": "abc", "n": 1}', '{"access_token": "***", "n": 1}'),
        ("AccountName=a;AccountKey=b==;X=1", "AccountName=a;AccountKey=***;X=1"),
        ("Server=db;Uid=me;Pwd='a b';", "Server=db;Uid=me;Pwd=***;"),
        ("ghp_AbCdEfGhIjKlMnOpQrSt is", "*** is"),
        ("key AKIAABCDEFGHIJKLMNOP", "key ***"),
        ("Bearer abcdefghijklmnopqrst", "Bearer ***"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nb", "***\nb"),
        ("host=db password=swordfish dbname=x", "host=db password=*** dbname=x"),
        ("made by key-of-mine", "made by ***"),
        # What only looks like one.
        ("media/crops/aa/0123456789abcdef0123456789abcdef.png", None),
        ("sha256 " + "ab" * 32, None),
        ("happiness 0.4, surprise 0.6", None),
        ("s3://bucket/prefix and http://127.0.0.1:8080", None),
        ("http://127.0.0.1:8080/a?mail=me@host.org", None),
        ("https://host/@me/a", None),
        ("https://x/y?key=crops/aa/01.png&sort=id", None),
        ("the token: expired; secretary=ann", None),
    ],
)
def test_mask__secrets_and_words(text: str, shown: str | None) -> None:
    assert mask(text, "key-of-mine") == (text if shown is None else shown)


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("LABEL_STUDIO_API_KEY", "planted-1", {"planted-1"}),
        ("AWS_SECRET_ACCESS_KEY", "planted-2", {"planted-2"}),
        ("AWS_SESSION_TOKEN", "planted-3", {"planted-3"}),
        ("HF_TOKEN", "planted-4", {"planted-4"}),
        ("DATABASE_URL", "postgresql://me:planted-5@db/x", {"planted-5"}),
        ("PGPASSWORD", "planted-6", {"planted-6"}),
        *(
            (name, "planted/7+x", {"planted/7+x"})
            for name in (
                "AZURE_STORAGE_KEY",
                "AZURE_STORAGE_CONNECTION_STRING",
                "DB_PASS",
                "DB_PASSWD_2",
                "MYSQL_PWD",
                "OPENAI_KEY",
                "GITHUB_PAT",
                "PRIVATE_KEY",
                "SSH_PASSPHRASE",
                "APIKEY",
                "SECRET_KEY_BASE",
                "API_TOKEN_PROD",
                "REDIS_AUTH",
                "SLACK_WEBHOOK",
                "GITHUBTOKEN",
                "SLACK_WEBHOOK_URL",
                "SENTRY_DSN",
                "db.password",
                "my-secret",
                "AZURE_SAS",
            )
        ),
        ("BASIC_AUTH", "me:planted-8", {"me:planted-8", "planted-8"}),
        ("ANY", "Server=db;Uid=me;Pwd=planted-9", {"planted-9"}),
        ("ANY", "AccountKey=planted-10==;X=1", {"planted-10=="}),
        ("ANY", "host=db password='planted 11'", {"planted 11"}),
        ("ANY", "https://me:pl%40nted@db", {"pl%40nted", "pl@nted"}),
        ("ANY", "https://aVeryLongTokenAsUser1@git", {"aVeryLongTokenAsUser1"}),
        ("ANY", "https://host/?token=planted-12", {"planted-12"}),
        (
            "GCP_KEY",
            '{"private_key": "planted-13-planted"}',
            {'{"private_key": "planted-13-planted"}', "planted-13-planted"},
        ),
        ("LDAP_PW", "planted-14", {"planted-14"}),
        ("HTTP_AUTHORIZATION", "planted-15", {"planted-15"}),
        ("SSH_AUTH_SOCK", "/run/agent.1", set()),
        ("OS_AUTH_URL", "https://login.host", set()),
        ("PWD", "/somewhere/long", set()),
        ("PASSENGER_APP_ENV", "preview-7", set()),
        ("GIT_AUTHOR_NAME", "some name", set()),
        ("AUTH_MODE", "anything", set()),
        ("APP_AUTH", "required", set()),
        ("MONKEY", "planted-7", set()),
        ("MY_TOKEN", "no", set()),
        ("TOKENIZERS_PARALLELISM", "false-value", set()),
        ("HOME", "/somewhere/long", set()),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", set()),
    ],
)
def test_mask__environment_names(name: str, value: str, found: set[str]) -> None:
    assert secrets_in({name: value}) == found


def test_error__masks_environment(monkeypatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "swordfish-17")
    error = StudioError("an answer", got="swordfish-17 is no key", hint="put swordfish-17 away")
    for text in (str(error), repr(error), str(pickle.loads(pickle.dumps(error))), error.hint):
        assert "swordfish" not in text
    assert str(error) == "an answer: *** is no key. Put *** away"


SECRET = "planted@hf/tok+en"


@pytest.mark.parametrize(
    "spell",
    [
        lambda word: quote(word, safe=""),
        lambda word: quote(word, safe="").lower(),
        quote,
        lambda word: quote(quote(word, safe=""), safe=""),
        lambda word: base64.b64encode(word.encode()).decode(),
        lambda word: base64.urlsafe_b64encode(word.encode()).decode().rstrip("="),
        lambda word: base64.b64encode(f"me:{word}".encode()).decode(),
        lambda word: base64.b64encode(f"a{word}, more".encode()).decode(),
        lambda word: base64.b64encode(f"ab{word}".encode()).decode(),
        lambda word: word.encode().hex(),
        json.dumps,
        lambda word: json.dumps(json.dumps(word)),
        lambda word: word.replace("/", "\\/"),
        lambda word: f"{word[:7]}\n{word[7:]}",
        lambda word: f"{word[:7]}   \r\n    {word[7:]}",
    ],
)
def test_mask__encoded_secret(spell: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    shown = mask(f"first line\nnot: {spell(SECRET)} -\nlast line")
    assert shown.startswith("first line\nnot: ")
    assert shown.endswith(" -\nlast line")
    # Around the mask of base64 a few characters stay, which the bytes beside the secret share.
    assert len(shown.replace("***", "")) - len("first line\nnot:  -\nlast line") <= 12
    assert "***" in shown


@pytest.mark.parametrize(
    ("address", "stored"),
    [
        ("https://me:word@host:80/a%20b?token=x&id=5", "https://host:80/a%20b?id=5"),
        ("https://tok@host/a?X-Amz-Date=1&X-Amz-Signature=2", "https://host/a"),
        ("https://host/a?versionId=3&sig=4#access_token=5", "https://host/a?versionId=3"),
        ("https://host/a?key=AIza0123456789abcdef", "https://host/a"),
        # Which file it is stays.
        ("https://host/get?key=clips/a.mp4", "https://host/get?key=clips/a.mp4"),
        ("https://host/a?x=%2F&y=#part", "https://host/a?x=%2F&y=#part"),
        ("s3://bucket/a b.mp4", "s3://bucket/a b.mp4"),
        ("a folder/clip?token=1", "a folder/clip?token=1"),
    ],
)
def test_public_url__without_login_and_secret_parameters(address: str, stored: str) -> None:
    assert public_url(address) == stored


@pytest.mark.parametrize("secret", ["quo\"te's-17", "back\\slash-17", "ümläut-17"])
def test_mask__quoted_secret(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages of errors show what they refuse as ``repr`` or JSON has it."""
    monkeypatch.setenv("SOME_TOKEN", secret)
    assert mask(f"{KeyError(secret)} {secret!r} {json.dumps(secret)}").count("17") == 0


def test_mask__remembered_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_remembered", set())
    remember("swordfish-18")
    remember("a")
    assert mask("a swordfish-18 was caught") == "a *** was caught"
