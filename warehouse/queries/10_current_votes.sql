-- One row per face and rater: the newest answer that still stands.
-- An annotation that was deleted, or skipped, is no vote; a rater who answered twice has one.
WITH newest AS (
    SELECT *
    FROM annotations
    QUALIFY row_number() OVER (
        PARTITION BY project_id, annotation_id
        ORDER BY updated_at DESC, pulled_at DESC, event = 'deleted' DESC
    ) = 1
)
SELECT *
FROM newest
WHERE event <> 'deleted' AND NOT was_cancelled AND face_id IS NOT NULL
QUALIFY row_number() OVER (
    PARTITION BY face_id, rater_id ORDER BY updated_at DESC, annotation_id DESC
) = 1
