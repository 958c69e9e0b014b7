"""The server gives media files to accounts and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from annotation.label_studio import server
from annotation.label_studio.client import Address
from tests.annotation.label_studio.conftest import Board, Studio, push
from warehouse.errors import StudioError

pytestmark = pytest.mark.studio

ESCAPES = (
    "../label-studio/credentials.json",
    "crops/../../label-studio/credentials.json",
    "crops/%2e%2e/%2e%2e/label-studio/credentials.json",
    "..%2flabel-studio%2fcredentials.json",
    "//etc/passwd",
    "/etc/passwd",
    "crops/....//....//label-studio/credentials.json",
    "crops\\..\\..\\label-studio\\credentials.json",
    "",
    ".",
    "crops",
)


def test_server__no_address_leaves_the_media_folder(
    studio: Studio, board: Callable[[int], Board]
) -> None:
    made = board(1)
    push(made.client, made.id, made.faces)
    secret = (studio.home.studio / "credentials.json").read_text()
    with httpx.Client(
        base_url=studio.address.url,
        headers={"Authorization": f"Token {studio.address.token}"},
        timeout=30,
    ) as http:
        good = http.get(f"/data/local-files/?d={made.faces['crop'][0]}")
        assert good.status_code == 200
        assert good.content[:4] == b"\x89PNG"
        for escape in ESCAPES:
            for path in (f"/data/local-files/?d={escape}", f"/data/{escape}"):
                answer = http.get(path, follow_redirects=True)
                assert secret not in answer.text, path
                assert "root:" not in answer.text, path
    stranger = httpx.get(f"{studio.address.url}/data/local-files/?d={made.faces['crop'][0]}")
    assert stranger.status_code in (301, 302, 401, 403)


@pytest.mark.parametrize("kind", ["file", "folder", "missing"])
def test_server__refuses_a_media_folder_with_a_link(tmp_path: Path, kind: str) -> None:
    """The server follows links, so it is not started over a folder of one."""
    media = tmp_path / "media"
    (media / "crops" / "aa").mkdir(parents=True)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "file").write_text("secret")
    target = {"file": "secrets/file", "folder": "secrets", "missing": "absent"}[kind]
    (media / "crops" / "aa" / "link.png").symlink_to(tmp_path / target)
    with pytest.raises(StudioError, match=r"which Label Studio would follow: .*aa/link\.png"):
        server.up(tmp_path / "studio", media)
    assert server.status(tmp_path / "studio").state == "down"
    # The folder as a whole may be a link: a larger disk.
    (media / "crops" / "aa" / "link.png").unlink()
    (tmp_path / "elsewhere").symlink_to(media)
    server.refuse_links((tmp_path / "elsewhere").resolve())


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://127.0.0.1:8080", False),
        ("http://localhost:8080", False),
        ("https://studio.example.org", False),
        ("http://studio.example.org", True),
        ("http://10.0.0.7:8080", True),
    ],
)
def test_server__warns_without_https(url: str, warned: bool) -> None:
    assert (Address(url, "token").warning is not None) == warned
