-- One row per face and rater: the newest answer that still stands.
-- An annotation that was deleted, or skipped, is no vote; a rater who answered twice has one.
SELECT *
FROM standing_annotations
WHERE NOT coalesce(was_cancelled, false) AND face_id IS NOT NULL
QUALIFY row_number() OVER (
    PARTITION BY face_id, rater_id ORDER BY updated_at DESC, annotation_id DESC
) = 1
