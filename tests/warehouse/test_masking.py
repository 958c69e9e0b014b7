"""What counts as a secret, and that ordinary words do not."""

from __future__ import annotations

import json
import pickle

import pytest

from warehouse import masking
from warehouse.errors import StudioError
from warehouse.masking import mask, remember, secrets_in

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
        ("host=db password=swordfish dbname=x", "host=db password=*** dbname=x"),
        ("made by key-of-mine", "made by ***"),
        # What only looks like one.
        ("media/crops/aa/0123456789abcdef0123456789abcdef.png", None),
        ("sha256 " + "ab" * 32, None),
        ("happiness 0.4, surprise 0.6", None),
        ("s3://bucket/prefix and http://127.0.0.1:8080", None),
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
