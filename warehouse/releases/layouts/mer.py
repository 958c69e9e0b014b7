"""Write clips, sounds, faces and words as the MER challenges read them."""

from __future__ import annotations

import io
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases.layouts import face_arrays, segments
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

SIZE = 224
_RATE = 25
"""Frames a second of the AVI files."""

_CORPORA = {"train": "train_corpus", "validation": "val_corpus", "test": "test_corpus"}
_DELICATE = re.compile(r"[,'\"\[\]]")
"""Marks at which readers split the text of a list."""


def write_merbench(export: Export) -> None:
    """Write ``<name>_label.npz``, lists, sounds, videos and face arrays.

    ``emo`` is the number of the class, ``val`` twice the mean valence that people gave, ``nan``
    where none was asked. Faces are BGR, as OpenCV reads them.
    """
    rows = segments.labelled(export, segments.read(export))
    valence = segments.moods(export, "valence")
    name = safe(str(export.contents["name"]))
    corpora: dict[str, Any] = {}
    for split, corpus in _CORPORA.items():
        part = rows.filter(pl.col("split") == split)
        known = part.select("name", "segment_id", "number").iter_rows()
        corpora[corpus] = {
            file: {"emo": number, "val": 2 * valence.get(segment, float("nan"))}
            for file, segment, number in known
        }
    # Readers call `.tolist()` on an object array, so a dict must be pickled.
    np.savez_compressed(export.path(f"{name}_label.npz"), **corpora)
    texts = rows.select("name", "word", "text").iter_rows()
    export.table("transcription.csv", texts, header=("name", "emotion", "chinese"))
    for modality in ("mm", "video", "audio"):
        listed = rows.select(pl.col("name"), "word").iter_rows()
        export.table(f"{modality}.csv", listed, header=("file_name", "emotion"))
    _media(export, rows, video="subvideo-tgt/{}.mp4", audio="subaudio/{}.wav")
    _faces(export, rows)
    export.keep(rows.with_columns(path=pl.lit(f"{name}_label.npz")), key="segment_id")


def write_ov(export: Export) -> None:
    """Write the tracks of open words: ``track2``, ``track3``, subtitles.

    ``openset`` is the union of people's words by falling count. Marks at which the reader splits
    are replaced by blanks. A segment without words is left out; a reason and a subtitle may be
    empty.
    """
    words = segments.open_words(export)
    found = segments.read(export).unique("segment_id").sort("segment_id")
    rows = export.leave_out(found, ~pl.col("segment_id").is_in(list(words)), "no_open_words")
    reasons = segments.texts(export, *segments.REASONS)
    name = safe(str(export.contents["name"]))
    ids = list(rows.select("name", "segment_id", "text", "language").iter_rows())
    export.table(
        f"track2_train_{name}.csv",
        ((file, _listed(words[segment])) for file, segment, _, _ in ids),
        header=("name", "openset"),
    )
    export.table(
        f"track3_train_{name}.csv",
        ((file, " ".join(reasons.get(segment, []))) for file, segment, _, _ in ids),
        header=("name", "reason"),
    )
    export.table(
        "subtitle_chieng.csv",
        ((file, *((text, "") if (language or "").startswith("zh") else ("", text)))
         for file, _, text, language in ids),
        header=("name", "chinese", "english"),
    )  # fmt: skip
    _media(export, rows, video="video/{}.mp4", audio="audio/{}.wav")
    _faces(export, rows)
    export.keep(rows.with_columns(path=pl.lit(f"track2_train_{name}.csv")), key="segment_id")


def _listed(words: list[str]) -> str:
    plain = dict.fromkeys(_DELICATE.sub(" ", word).strip() for word in words)
    return "[" + ", ".join(f"'{word}'" for word in plain if word) + "]"


def write_emer(export: Export) -> None:
    """Write ``gt-eng.csv`` and ``video/<name>.avi`` with sound.

    Emotions are people's open words, else the class. Only segments with a reason that a person gave
    are written, or a machine's if asked for.
    """
    reasons = segments.texts(export, *segments.REASONS)
    if not reasons:
        raise ReleaseError(
            "No person has said why a label was given",
            got=f"no text of the kinds {', '.join(segments.REASONS)}",
            hint="ask for rationales, or allow machines' texts with --machine-text",
        )
    found = segments.read(export)
    labels = {one: [word] for one, word in segments.words_of(found, export.classes).items()}
    words = labels | segments.open_words(export)
    rows = found.unique("segment_id").sort("segment_id")
    unexplained = ~pl.col("segment_id").is_in(list(reasons))
    rows = export.leave_out(rows, unexplained, "no_reason")
    rows = export.leave_out(rows, ~pl.col("segment_id").is_in(list(words)), "no_words_and_no_class")
    rows = segments.need(export, rows, "video")
    lines = (
        (row["name"], ", ".join(words[row["segment_id"]]), row["text"],
         " ".join(reasons[row["segment_id"]]))
        for row in rows.iter_rows(named=True)
    )  # fmt: skip
    export.table("gt-eng.csv", lines, header=("names", "emotions", "subtitles", "reasons"))
    rows = rows.with_columns(path=pl.format("video/{}.avi", "name"))

    def write(name: Any, data: bytes) -> None:
        export.path(str(name)).write_bytes(to_avi(data))

    segments.media(export, rows, {"video": write})
    export.keep(rows, key="segment_id")


def to_avi(data: bytes) -> bytes:
    """Return a video as AVI: MPEG-4 at a constant rate, sound as PCM.

    H.264 is encoded again, because AVI cannot hold its reordered frames.

    Raises:
        ReleaseError: the bytes are no video.
    """
    import av

    made = io.BytesIO()
    try:
        with av.open(io.BytesIO(data), "r") as source, av.open(made, "w", format="avi") as target:
            _encode(source, target)
    except (av.FFmpegError, IndexError) as error:
        raise ReleaseError(
            "The video of a segment cannot be rewritten as AVI",
            got=str(error),
            hint="use the layout mer-ov, which takes mp4",
        ) from error
    return made.getvalue()


def _encode(source: InputContainer, target: OutputContainer) -> None:
    import av

    shown = source.streams.video[0]
    film: Any = target.add_stream("mpeg4", rate=_RATE)
    film.width, film.height, film.pix_fmt = shown.width, shown.height, "yuv420p"
    film.bit_rate = 100 * shown.width * shown.height
    heard = next(iter(source.streams.audio), None)
    sound: Any = target.add_stream("pcm_s16le", rate=16_000, layout="mono") if heard else None
    resampler = av.AudioResampler("s16", "mono", 16_000)
    count = 0
    frames: Any = source.decode(*(one for one in (shown, heard) if one is not None))
    for frame in frames:
        if isinstance(frame, av.AudioFrame):
            for part in resampler.resample(frame):
                target.mux(sound.encode(part))
            continue
        while count <= round((frame.time or 0.0) * _RATE):
            plain = frame.reformat(format="yuv420p")
            plain.pts, plain.time_base = count, Fraction(1, _RATE)
            target.mux(film.encode(plain))
            count += 1
    target.mux(film.encode(None))
    if sound is not None:
        target.mux(sound.encode(None))


def _media(export: Export, rows: pl.DataFrame, *, video: str, audio: str) -> None:
    writers = {
        "video": segments.copy_writer(export, video),
        "audio": segments.wav_writer(export, audio),
    }
    segments.media(export, rows, writers, key="name")


def _faces(export: Export, rows: pl.DataFrame) -> None:
    """Write ``openface_face/<name>/<name>.npy`` of the sampled frames."""
    names = dict(rows.select("segment_id", "name").iter_rows())
    found = face_arrays.within(face_arrays.uncounted(export), rows)
    face_arrays.write(
        export, found,
        lambda segment: f"openface_face/{names[segment]}/{names[segment]}.npy",
        size=SIZE, bgr=True,
    )  # fmt: skip


MERBENCH = Layout(
    "merbench", "labels, sounds, videos and faces of MERBench", write_merbench, order="mer6:mer",
    faces=False,
)  # fmt: skip
MER_OV = Layout(
    "mer-ov", "open words, reasons and subtitles of the MER tracks", write_ov, order="mer6:mer",
    faces=False,
)  # fmt: skip
EMER = Layout("emer", "reasons and AVI files of EMER", write_emer, order="mer6:mer", faces=False)
