"""Schemas of all tables: column names, types and the key of a row."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS, OPEN_SET

TEXT, INT, FLOAT, BOOL = pl.String, pl.Int64, pl.Float64, pl.Boolean
TIME = pl.Datetime("us", "UTC")
EXPRESSION = pl.Array(pl.Float32, len(EXPRESSIONS))
OPEN = pl.Array(pl.Float32, len(OPEN_SET))
AU = pl.Array(pl.Float32, len(ACTION_UNITS))
FEATURE = pl.Array(pl.Float16, 256)
ANSWER = pl.Struct(
    {
        "validity": TEXT,
        "expressions": pl.List(TEXT),
        "confidence": TEXT,
        "valence": FLOAT,
        "arousal": FLOAT,
        "note": TEXT,
    }
)
WORDS = pl.List(pl.Struct({"start_s": FLOAT, "end_s": FLOAT, "text": TEXT}))
"""Transcribed words with their seconds in the video."""

INTENSITIES = pl.List(pl.Struct({"unit": INT, "intensity": FLOAT}))
"""Action units coded by a person: FACS number, intensity in [0, 1]; 0 means inactive."""


@dataclass(frozen=True)
class Table:
    """Name, columns and key of a table.

    Attributes:
        columns: name to Polars type, in file order.
        key: the columns that identify a row.
        by_batch: files lie under ``batch=<batch>/``, one per video.
    """

    name: str
    columns: dict[str, pl.DataType | type[pl.DataType]]
    key: tuple[str, ...]
    by_batch: bool = False

    @property
    def schema(self) -> pl.Schema:
        return pl.Schema(self.columns)

    def empty(self) -> pl.DataFrame:
        return pl.DataFrame(schema=self.schema)


_TABLES = (
    Table(
        "videos",
        {
            "video_id": TEXT, "uri": TEXT, "batch": TEXT, "sha256": TEXT, "bytes": INT,
            "duration_s": FLOAT, "fps": FLOAT, "width": INT, "height": INT, "rotation": INT,
            "codec": TEXT, "has_audio": BOOL, "subject_id": TEXT, "consent": TEXT,
            "licence": TEXT, "source": TEXT, "verdict": TEXT, "reason": TEXT,
        },
        ("video_id", "batch"),
        by_batch=True,
    ),
    Table(
        "tracks",
        {
            "track_id": TEXT, "video_id": TEXT, "batch": TEXT, "start_s": FLOAT, "end_s": FLOAT,
            "n_frames": INT, "best_face_id": TEXT, "subject_id": TEXT, "is_main": BOOL,
        },
        ("track_id",),
        by_batch=True,
    ),
    Table(
        "faces",
        {
            "face_id": TEXT, "track_id": TEXT, "video_id": TEXT, "batch": TEXT, "frame": INT,
            # Sharpness: ratio of fine edges to gentle slopes of the face at 48 px, in 1/px²,
            # independent of light. Files without `blockiness` hold the variance of a Laplacian.
            "time_s": FLOAT, "bbox": pl.Array(pl.Float32, 4),
            "keypoints": pl.Array(pl.Float32, (5, 2)), "detector_score": FLOAT,
            "yaw": FLOAT, "pitch": FLOAT, "roll": FLOAT, "sharpness": FLOAT,
            "brightness": FLOAT, "size_px": FLOAT, "occlusion": FLOAT, "crop": TEXT,
            "context": TEXT, "phash": TEXT, "verdict": TEXT, "reason": TEXT,
            "clipped": FLOAT, "blockiness": FLOAT,
        },
        ("face_id",),
        by_batch=True,
    ),
    Table(
        "ratings",
        {
            "face_id": TEXT, "rater_id": TEXT, "batch": TEXT, "expression": EXPRESSION,
            "open_set": OPEN, "au": AU, "feature": FEATURE,
        },
        ("face_id", "rater_id"),
        by_batch=True,
    ),
    Table(
        "clips",
        {
            "clip_id": TEXT, "track_id": TEXT, "video_id": TEXT, "batch": TEXT,
            "start_s": FLOAT, "end_s": FLOAT, "onset_s": FLOAT, "apex_s": FLOAT,
            "offset_s": FLOAT, "n_faces": INT, "apex_face_id": TEXT, "apex_au": INT,
            "apex_intensity": FLOAT, "apex_expression": TEXT, "rater_id": TEXT, "method": TEXT,
            "sound": TEXT, "words": WORDS, "verdict": TEXT, "reason": TEXT,
        },
        ("clip_id",),
        by_batch=True,
    ),
    Table(
        "segments",
        {
            "segment_id": TEXT, "video_id": TEXT, "batch": TEXT, "kind": TEXT, "start_s": FLOAT,
            "end_s": FLOAT, "dialogue_id": TEXT, "turn": INT, "speaker": TEXT, "role": TEXT,
            "transcript": TEXT, "language": TEXT, "subject_ids": pl.List(TEXT), "source": TEXT,
            "video": TEXT, "sound": TEXT, "verdict": TEXT, "reason": TEXT,
        },
        ("segment_id",),
        by_batch=True,
    ),
    Table(
        "sensors",
        {
            "sensor_id": TEXT, "video_id": TEXT, "batch": TEXT, "kind": TEXT,
            "channels": pl.List(TEXT), "rate_hz": FLOAT, "media": TEXT, "offset_s": FLOAT,
            "start_s": FLOAT, "end_s": FLOAT, "sha256": TEXT, "verdict": TEXT, "reason": TEXT,
        },
        ("sensor_id",),
        by_batch=True,
    ),
    Table(
        "texts",
        {
            "item_kind": TEXT, "item_id": TEXT, "kind": TEXT, "text": TEXT,
            "words": pl.List(TEXT), "language": TEXT, "author_kind": TEXT, "rater_id": TEXT,
            "position": INT,
        },
        ("item_kind", "item_id", "kind", "rater_id", "position"),
    ),
    Table(
        "spans",
        {
            "item_kind": TEXT, "item_id": TEXT, "label_set": TEXT, "label": TEXT,
            "start_s": FLOAT, "end_s": FLOAT, "cues": pl.List(TEXT), "rater_id": TEXT,
            "rater_kind": TEXT, "position": INT,
        },
        ("item_kind", "item_id", "label_set", "rater_id", "position"),
    ),
    Table(
        "traces",
        {
            "item_kind": TEXT, "item_id": TEXT, "dimension": TEXT, "rater_id": TEXT,
            "rater_kind": TEXT, "time_s": pl.List(pl.Float64), "value": pl.List(pl.Float64),
            "lag_s": FLOAT, "source": TEXT,
        },
        ("item_kind", "item_id", "dimension", "rater_id"),
    ),
    Table(
        "subjects",
        {"subject_id": TEXT, "field": TEXT, "value": TEXT, "stated_by": TEXT, "batch": TEXT},
        ("subject_id", "field", "stated_by", "batch"),
    ),
    Table(
        "sessions",
        {"video_id": TEXT, "field": TEXT, "value": TEXT, "stated_by": TEXT, "batch": TEXT},
        ("video_id", "field", "stated_by", "batch"),
    ),
    Table(
        "identities",
        {
            "face_id": TEXT, "embedding": pl.Array(pl.Float16, 512), "subject_id": TEXT,
            "method": TEXT,
        },
        ("face_id",),
    ),
    Table(
        "queue",
        {
            "face_id": TEXT, "round": INT, "priority": FLOAT, "reason": TEXT,
            "wanted_votes": INT,
        },
        ("face_id", "round"),
    ),
    Table(
        "annotations",
        {
            "annotation_id": INT, "task_id": INT, "project_id": INT, "face_id": TEXT,
            "rater_id": TEXT, "rater_kind": TEXT, "event": TEXT, "answer": ANSWER,
            "lead_time_s": FLOAT, "was_cancelled": BOOL, "saw_prediction": BOOL,
            "created_at": TIME, "updated_at": TIME, "pulled_at": TIME,
            # Columns, not fields of `answer`: a reader fills missing columns of older files, but
            # not missing struct fields.
            "label_set": TEXT, "labels": pl.List(TEXT), "compounds": pl.List(TEXT),
            "free_label": TEXT, "au": INTENSITIES, "edited_by": TEXT,
            # What the answer is about; `answers` holds those to typed questions as JSON.
            "item_kind": TEXT, "item_id": TEXT, "answers": TEXT,
        },
        # A number can be given to another annotation, and an answer can go back to an older one.
        ("project_id", "annotation_id", "created_at", "event", "updated_at", "pulled_at"),
    ),
    Table(
        "soft_labels",
        {
            "face_id": TEXT, "expression": EXPRESSION, "open_set_share": FLOAT, "n_votes": INT,
            "entropy": FLOAT, "agreement": FLOAT, "valence": FLOAT, "arousal": FLOAT, "au": AU,
            "method": TEXT,
            # `distribution` follows the order of the label set; faces have `expression` too.
            "item_kind": TEXT, "item_id": TEXT, "label_set": TEXT,
            "distribution": pl.List(pl.Float32),
        },
        ("face_id", "item_kind", "item_id", "label_set"),
    ),
    Table(
        "rater_quality",
        {
            "rater_id": TEXT, "n_votes": INT, "weight": FLOAT, "agreement": FLOAT,
            "confusion": pl.List(pl.List(pl.Float64)), "drift": FLOAT,
        },
        ("rater_id",),
    ),
    Table(
        "audits",
        {"face_id": TEXT, "audit": TEXT, "score": FLOAT, "flag": BOOL, "detail": TEXT},
        ("face_id", "audit"),
    ),
    Table(
        "synthetic_faces",
        {
            "face_id": TEXT, "target_au": AU, "target_expression": EXPRESSION, "seed": INT,
            "model": TEXT, "guidance": FLOAT, "crop": TEXT, "measured_au": AU,
            "soft_label": EXPRESSION, "action": TEXT, "reason": TEXT,
            # Of faces by a synthesizer of the user's own: the face that was edited, with which
            # the edit is erased, and the licence of the images.
            "reference": TEXT, "licence": TEXT,
        },
        ("face_id",),
    ),
    Table(
        "releases",
        {
            "name": TEXT, "version": INT, "patch": INT, "created_at": TIME, "parent": INT,
            "rows": INT, "fingerprint": TEXT, "code_version": TEXT, "inputs": TEXT,
            "published": pl.List(TEXT), "withdrawn_at": TIME, "replaced_by": TEXT,
        },
        ("name", "version", "patch"),
    ),
    Table(
        "tombstones",
        {
            "what": TEXT, "when": TIME, "why": TEXT, "releases": pl.List(TEXT),
            # Null in files of before; then `why` and `when` tell, see `privacy.tombstones`.
            "event": TEXT, "owner": TEXT, "number": INT,
        },
        ("what", "when"),
    ),
)  # fmt: skip

TABLES = {table.name: table for table in _TABLES}
