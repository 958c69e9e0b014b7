"""Downloads from an HTTP server and a local object store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.ingest.download import FetchLimits, fetch, is_address, name_of
from tests.pipeline.faces.file_server import Served, serving
from warehouse.errors import MediaError

QUICK = FetchLimits(attempts=3, pause_s=0.01, timeout_s=5.0)
BYTES = bytes(range(256)) * 40_000


@pytest.fixture
def server() -> Iterator[Served]:
    with serving() as served:
        served.files["/a/clip.mp4"] = BYTES
        yield served


def test_download__changed_and_unchanged(server: Served, tmp_path: Path) -> None:
    address = f"{server.url}/a/clip.mp4?token=secret"
    marks = fetch(address, tmp_path, {}, limits=QUICK)
    assert (tmp_path / "clip.mp4").read_bytes() == BYTES
    assert fetch(address, tmp_path, marks, limits=QUICK) == marks
    server.files["/a/clip.mp4"] = b"other"
    assert fetch(address, tmp_path, marks, limits=QUICK) != marks
    assert (tmp_path / "clip.mp4").read_bytes() == b"other"
    assert [status for _, _, status in server.asked] == [200, 304, 200]
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("marked", [True, False])
def test_download__resumed(server: Served, tmp_path: Path, marked: bool) -> None:
    server.marked = marked
    server.faults = [("cut", 3_000_000), ("status", 503)]
    fetch(f"{server.url}/a/clip.mp4", tmp_path, {}, limits=QUICK)
    assert (tmp_path / "clip.mp4").read_bytes() == BYTES
    _, span, status = server.asked[-1]
    # Without an ETag the other half may be of another file: start again.
    assert (status == 206) == marked
    assert (span is not None) == marked
    if span:
        assert 0 < int(span[6:-1]) <= 3_000_000


def test_download__changed_while_partial(server: Served, tmp_path: Path) -> None:
    server.faults = [("cut", 3_000_000), ("status", 500), ("status", 500)]
    with pytest.raises(MediaError, match="unreachable: HTTP 500, 3 times"):
        fetch(f"{server.url}/a/clip.mp4", tmp_path, {}, limits=QUICK)
    assert not (tmp_path / "clip.mp4").exists()
    server.files["/a/clip.mp4"] = BYTES[::-1]
    fetch(f"{server.url}/a/clip.mp4", tmp_path, {}, limits=QUICK)
    assert (tmp_path / "clip.mp4").read_bytes() == BYTES[::-1]


@pytest.mark.parametrize(
    ("faults", "limits", "said", "requests"),
    [
        ([("status", 404)], QUICK, "gone: HTTP 404", 1),
        ([("status", 403)], QUICK, "unreachable: HTTP 403", 1),
        ([("status", 503)] * 3, QUICK, "unreachable: HTTP 503, 3 times", 3),
        ([], FetchLimits(file_bytes=1000, attempts=2, pause_s=0.01), "too_large", 1),
    ],
)
def test_download__failure_reason_masked(
    server: Served,
    tmp_path: Path,
    faults: list[tuple[str, int]],
    limits: FetchLimits,
    said: str,
    requests: int,
) -> None:
    server.faults = faults
    (tmp_path / "clip.mp4").write_bytes(b"what was there")
    with pytest.raises(MediaError) as raised:
        fetch(f"{server.url}/a/clip.mp4?token=secret", tmp_path, {}, limits=limits)
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)
    assert len(server.asked) == requests
    assert (tmp_path / "clip.mp4").read_bytes() == b"what was there"


def test_download__server_unreachable(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="unreachable: ConnectError, 3 times"):
        fetch("http://127.0.0.1:9/clip.mp4", tmp_path, {}, limits=QUICK)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://host/a/My%20clip.mp4?x=1#y", "My clip.mp4"),
        ("https://host/a/..%2f..%2fetc%2fpasswd", "passwd"),
        ("https://host/", "download"),
        ("s3://bucket/folder/", "folder"),
        ("https://host/.hidden", "hidden"),
    ],
)
def test_file_name__from_url(address: str, name: str) -> None:
    assert name_of(address) == name


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("https://a/b", True), ("s3://a/b", True), ("/a/b", False), ("c:/a", False), ("a//b", False)],
)
def test_is_url__paths(text: str, is_one: bool) -> None:
    assert is_address(text) == is_one


@pytest.mark.parametrize("address", ["file:///etc/passwd", "zip://a::https://b/c", "nonsense://a"])
def test_object_store__invalid_url(tmp_path: Path, address: str) -> None:
    with pytest.raises(MediaError, match="unreachable"):
        fetch(address, tmp_path, {}, limits=QUICK)


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[object, str]]:
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    import boto3

    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket="films")
        yield client, "s3://films"
        server.stop()


def test_object_store__file_or_prefix(bucket: tuple[object, str], tmp_path: Path) -> None:
    client, url = bucket
    for key, body in (("day/a.mp4", b"a"), ("day/in/b.mp4", b"b"), ("day/.c.mp4", b"hidden")):
        client.put_object(Bucket="films", Key=key, Body=body)  # type: ignore[attr-defined]
    one = fetch(f"{url}/day/a.mp4", tmp_path / "one", {}, limits=QUICK)
    assert list(one) == ["a.mp4"]
    every = fetch(f"{url}/day", tmp_path / "all", {}, limits=QUICK)
    assert sorted(every) == ["a.mp4", "in/b.mp4"]
    assert (tmp_path / "all" / "in" / "b.mp4").read_bytes() == b"b"
    before = (tmp_path / "all" / "a.mp4").stat().st_mtime_ns
    client.put_object(Bucket="films", Key="day/in/b.mp4", Body=b"new b")  # type: ignore[attr-defined]
    again = fetch(f"{url}/day", tmp_path / "all", every, limits=QUICK)
    assert (again["a.mp4"] == every["a.mp4"], again["in/b.mp4"] == every["in/b.mp4"]) == (
        True,
        False,
    )
    assert (tmp_path / "all" / "in" / "b.mp4").read_bytes() == b"new b"
    assert (tmp_path / "all" / "a.mp4").stat().st_mtime_ns == before
    client.delete_object(Bucket="films", Key="day/a.mp4")  # type: ignore[attr-defined]
    assert list(fetch(f"{url}/day", tmp_path / "all", again, limits=QUICK)) == ["in/b.mp4"]
    assert not (tmp_path / "all" / "a.mp4").exists()


@pytest.mark.parametrize(
    ("key", "limits", "said"),
    [
        ("/nothing/here.mp4", QUICK, "gone"),
        ("/big", FetchLimits(file_bytes=3, attempts=2, pause_s=0.01), "too_large"),
        ("/big", FetchLimits(files=1, attempts=2, pause_s=0.01), "too_large: 2 files"),
    ],
)
def test_object_store__failure_reason(
    bucket: tuple[object, str], tmp_path: Path, key: str, limits: FetchLimits, said: str
) -> None:
    client, url = bucket
    for name in ("big/x", "big/y"):
        client.put_object(Bucket="films", Key=name, Body=b"many bytes")  # type: ignore[attr-defined]
    with pytest.raises(MediaError, match=said):
        fetch(f"{url}{key}", tmp_path, {}, limits=limits)
    assert not list(tmp_path.rglob("*.mp4"))
