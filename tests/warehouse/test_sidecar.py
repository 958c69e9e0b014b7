"""Tables that people write beside their files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from warehouse import sidecar
from warehouse.errors import SettingsError
from warehouse.sidecar import METADATA_COLUMNS, VIDEO_COLUMNS, read_csv


@pytest.mark.parametrize(
    "text",
    [
        "file_name,subject_id,licence,consent\na.mp4,ada,CC0,no\n",
        "file_name, subject_id, licence, consent\na.mp4, ada, CC0, no\n",
        "\ufeffFile Name,Subject ID,LICENSE,Consent\na.mp4,ada,CC0,no\n",
        "filename;person;license;einwilligung\na.mp4;ada;CC0;no\n",
        "path\tsubject\tlicence\tpermission\r\na.mp4\tada\tCC0\tno\r\n",
        "file,identity,license,consented\ra.mp4,ada,CC0,no\r",
        'video,participant,license,consent\n"a.mp4","ada","CC0","no"\n',
        "File.name,PersonID,License type:,Consent given? (y/n)\na.mp4,ada,CC0,no\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_read_csv__columns_by_any_of_their_names(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "videos.csv"
    path.write_bytes(text.encode(encoding))
    table = read_csv(path, VIDEO_COLUMNS)
    wanted = {"file_name": "a.mp4", "subject_id": "ada", "licence": "CC0", "consent": "no"}
    assert table.rows == [wanted]
    assert table.notes == []


def test_read_csv__a_column_of_ours_wins_and_others_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_text("file_name,path,label,Camera\na.png,x,sad,wide\n")
    table = read_csv(path, METADATA_COLUMNS)
    assert table.rows == [{"file_name": "a.png", "label": "sad"}]
    assert table.notes[0].startswith("metadata.csv: not read: 'path', 'Camera'. Columns that count")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"file,path\na,b\n", "two columns for file_name: 'file', 'path'"),
        (b"file_name,consent,Consent\na,b,c\n", "two columns for consent"),
        (b"file_name,consent_to_publish\na,no\n", "may say who refused.*'consent_to_publish'"),
        (b"file_name,consent,Opted-out\na,yes,x\n", "may say who refused.*'Opted-out'"),
        (b"file_name,licence\nmy, clip.mp4,CC0\n", "line 2: 3 cells, 2 columns"),
        (b'file_name,licence\n"a.mp4,CC0\n', "not a table"),
        ("file_name\nä.mp4\n".encode("latin-1"), "UTF-8"),
        (b"file_name\na\0.mp4\n", "a NUL in line 2"),
    ],
)
def test_read_csv__names_what_is_wrong(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "videos.csv"
    path.write_bytes(data)
    with pytest.raises(SettingsError, match=message):
        read_csv(path, VIDEO_COLUMNS)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "nothing", "large"])
def test_read_bytes__regular_files_of_limited_size_only(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "videos.csv"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "large":
        monkeypatch.setattr(sidecar, "MAX_BYTES", 3)
        path.write_text("four")
    with pytest.raises(SettingsError, match=r"videos\.csv (is no|cannot|is larger)"):
        sidecar.read_bytes(path)
