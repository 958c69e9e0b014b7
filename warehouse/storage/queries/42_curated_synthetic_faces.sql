-- One row per synthetic face whose label was kept or corrected, in the columns of curated_faces.
-- It has no video, track, subject or vote. Its licence depends on its model.
SELECT
    face_id,
    NULL::VARCHAR AS video_id,
    NULL::VARCHAR AS track_id,
    NULL::VARCHAR AS subject_id,
    NULL::DOUBLE AS time_s,
    crop,
    soft_label,
    NULL::DOUBLE AS open_set_share,
    0::BIGINT AS n_votes,
    list_sum(list_transform(soft_label, lambda p: CASE WHEN p > 0 THEN -p * log2(p) ELSE 0 END))
        ::DOUBLE AS entropy,
    measured_au AS au,
    NULL::DOUBLE AS valence,
    NULL::DOUBLE AS arousal,
    NULL::DOUBLE AS label_quality,
    NULL::BOOLEAN AS is_label_issue,
    NULL::DOUBLE AS open_set_score,
    NULL::BOOLEAN AS is_open_set,
    NULL::VARCHAR AS duplicate_of,
    'synthetic' AS source,
    model AS licence,
    NULL::VARCHAR AS consent
FROM synthetic_faces
WHERE action IN ('kept', 'relabelled') AND crop IS NOT NULL AND soft_label IS NOT NULL
ORDER BY face_id
