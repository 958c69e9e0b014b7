"""Archives: extracted files, refusals, and no file outside the folder."""

from __future__ import annotations

import errno
import io
import stat
import zipfile
from pathlib import Path

import pytest

from pipeline.ingest import archive
from pipeline.ingest.archive import ArchiveLimits, unpack
from warehouse.errors import DiskError, MediaError

Entry = tuple[str, bytes]


def packed(path: Path, *entries: Entry, links: tuple[str, ...] = ()) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, body in entries:
            info = zipfile.ZipInfo(name, (2024, 5, 6, 7, 8, 10))
            target.writestr(info, body, zipfile.ZIP_DEFLATED)
        for name in links:
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            target.writestr(info, "/etc/passwd")
    return path


def below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_extract__folders_and_times(tmp_path: Path) -> None:
    path = packed(
        tmp_path / "x.zip",
        ("a.mp4", b"a"), ("day/b.mp4", b"b"), ("day\\c.mp4", b"c"), ("day/videos.csv", b"csv"),
        ("__MACOSX/._a.mp4", b"litter"), (".DS_Store", b"litter"),
    )  # fmt: skip
    written, refused = unpack(path, tmp_path / "out")
    files = below(tmp_path / "out")
    assert files == {"a.mp4": b"a", "day/b.mp4": b"b", "day/c.mp4": b"c", "day/videos.csv": b"csv"}
    assert (written, refused) == (set(files), {})
    first = (tmp_path / "out" / "a.mp4").stat().st_mtime_ns
    unpack(path, tmp_path / "out")
    assert (tmp_path / "out" / "a.mp4").stat().st_mtime_ns == first


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("../evil.mp4", "unsafe_name"),
        ("day/../../evil.mp4", "unsafe_name"),
        ("..\\evil.mp4", "unsafe_name"),
        ("/tmp/evil.mp4", "unsafe_name"),
        ("C:/evil.mp4", "unsafe_name"),
        ("n" * 300 + ".mp4", "unsafe_name"),
        ("inner.zip", "nested_archive"),
        ("good.mp4", "repeated"),
        ("good.mp4/below.mp4", "repeated"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_extract__bad_name(tmp_path: Path, name: str, code: str) -> None:
    path = packed(tmp_path / "x.zip", ("good.mp4", b"good"), (name, b"evil"), ("z.mp4", b"z"))
    _, refused = unpack(path, tmp_path / "in" / "out")
    assert [reason.split(":")[0] for reason in refused.values()] == [code]
    assert below(tmp_path / "in") == {"out/good.mp4": b"good", "out/z.mp4": b"z"}
    assert not list(tmp_path.rglob("evil*"))


def test_extract__link(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.zip", ("good.mp4", b"good"), links=("passwd.mp4",))
    _, refused = unpack(path, tmp_path / "out")
    assert refused["passwd.mp4"].startswith("no_file")
    assert list(below(tmp_path / "out")) == ["good.mp4"]


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (ArchiveLimits(), "bomb"),
        (ArchiveLimits(ratio=10**6, file_bytes=1 << 20), "too_large"),
        (ArchiveLimits(ratio=10**6, total_bytes=1 << 20), "bad_entry: too_large"),
    ],
)
def test_extract__too_large(tmp_path: Path, limits: ArchiveLimits, code: str) -> None:
    path = packed(tmp_path / "x.zip", ("bomb.mp4", bytes(8 << 20)), ("z.mp4", b"z"))
    _, refused = unpack(path, tmp_path / "out", limits=limits)
    assert refused["bomb.mp4"].startswith(code)
    assert below(tmp_path / "out") == {"z.mp4": b"z"}


def test_extract__false_size_header(tmp_path: Path) -> None:
    data = bytearray(packed(tmp_path / "x.zip", ("liar.mp4", bytes(3 << 20))).read_bytes())
    size = (3 << 20).to_bytes(4, "little")
    assert data.count(size) == 2
    (tmp_path / "x.zip").write_bytes(bytes(data).replace(size, (100).to_bytes(4, "little")))
    _, refused = unpack(tmp_path / "x.zip", tmp_path / "out")
    assert refused["liar.mp4"].startswith("bad_entry")
    assert below(tmp_path / "out") == {}


def test_extract__damaged_or_encrypted_entry(tmp_path: Path) -> None:
    body = bytes(range(256)) * 8
    path = packed(tmp_path / "x.zip", ("a.mp4", b"a"), ("secret.mp4", b"s"), ("hurt.mp4", body))
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        hurt = archive.getinfo("hurt.mp4").header_offset + 60
    data[hurt : hurt + 20] = bytes(20)
    central = data.index(b"secret.mp4", data.index(b"PK\x01\x02")) - 46
    data[central + 8] |= 1
    path.write_bytes(bytes(data))
    _, refused = unpack(path, tmp_path / "out")
    assert {name: reason.split(":")[0] for name, reason in refused.items()} == {
        "secret.mp4": "encrypted",
        "hurt.mp4": "bad_entry",
    }
    assert below(tmp_path / "out") == {"a.mp4": b"a"}


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: path.write_bytes(b"PK no archive"), "bad_archive"),
        (lambda path: path.write_bytes(b""), "bad_archive"),
        (lambda path: None, "bad_archive"),
        (lambda path: packed(path, *((f"{n}.mp4", b"") for n in range(6))), "too_many: 6"),
    ],
)
def test_extract__unusable_archive(tmp_path: Path, make, code: str) -> None:
    path = tmp_path / "x.zip"
    make(path)
    with pytest.raises(MediaError, match=code):
        unpack(path, tmp_path / "out", limits=ArchiveLimits(entries=5))
    assert below(tmp_path / "out") == {}


def test_extract__file_named_like_a_folder(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.zip", ("a/b.mp4", b"b"), ("a", b"evil"), ("z.mp4", b"z"))
    _, refused = unpack(path, tmp_path / "out")
    assert [reason.split(":")[0] for reason in refused.values()] == ["bad_entry"]
    assert below(tmp_path / "out") == {"a/b.mp4": b"b", "z.mp4": b"z"}


def test_extract__full_disk_is_no_fault_of_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object, **options: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive, "_write", full)
    with pytest.raises(DiskError, match="The disk is full"):
        unpack(packed(tmp_path / "x.zip", ("a.mp4", b"a")), tmp_path / "out")
