-- One row per face, rater and label of another label set than the eight expressions.
SELECT face_id, rater_id, rater_kind, label_set, unnest(labels) AS label, updated_at
FROM (
    SELECT *
    FROM own_answers
    WHERE NOT coalesce(was_cancelled, false)
        AND face_id IS NOT NULL
        AND rater_kind IS DISTINCT FROM 'self'
        AND label_set <> 'expressions'
    QUALIFY row_number() OVER (
        PARTITION BY face_id, rater_id, label_set ORDER BY updated_at DESC, annotation_id DESC
    ) = 1
)
