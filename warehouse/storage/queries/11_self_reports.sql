-- One row per face, subject and label set: the newest self-report. Never mixed with observers.
SELECT *
FROM own_answers
WHERE NOT coalesce(was_cancelled, false) AND face_id IS NOT NULL AND rater_kind = 'self'
QUALIFY row_number() OVER (
    PARTITION BY face_id, rater_id, label_set ORDER BY updated_at DESC, annotation_id DESC
) = 1
