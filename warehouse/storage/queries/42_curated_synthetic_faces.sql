-- One row per synthetic face whose label was kept or corrected, in the columns of curated_faces.
-- It has no vote, and no video, track or subject unless it edits a face: then those of that face,
-- with its consent. The edit of a face that is no longer curated has no row. The licence is stated,
-- or depends on the model.
SELECT
    synthetic_faces.face_id,
    edited.video_id,
    edited.track_id,
    edited.subject_id,
    NULL::DOUBLE AS time_s,
    synthetic_faces.crop,
    synthetic_faces.soft_label,
    NULL::DOUBLE AS open_set_share,
    0::BIGINT AS n_votes,
    list_sum(
        list_transform(
            synthetic_faces.soft_label, lambda p: CASE WHEN p > 0 THEN -p * log2(p) ELSE 0 END
        )
    )::DOUBLE AS entropy,
    synthetic_faces.measured_au AS au,
    NULL::DOUBLE AS valence,
    NULL::DOUBLE AS arousal,
    NULL::DOUBLE AS label_quality,
    NULL::BOOLEAN AS is_label_issue,
    NULL::DOUBLE AS open_set_score,
    NULL::BOOLEAN AS is_open_set,
    NULL::VARCHAR AS duplicate_of,
    'synthetic' AS source,
    coalesce(synthetic_faces.licence, synthetic_faces.model) AS licence,
    edited.consent
FROM synthetic_faces
LEFT JOIN curated_faces AS edited ON edited.face_id = synthetic_faces.reference
WHERE
    synthetic_faces.action IN ('kept', 'relabelled')
    AND synthetic_faces.crop IS NOT NULL
    AND synthetic_faces.soft_label IS NOT NULL
    AND (synthetic_faces.reference IS NULL OR edited.face_id IS NOT NULL)
ORDER BY synthetic_faces.face_id
