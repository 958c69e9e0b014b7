-- One row per face and rater: the newest existing answer about expressions. Deleted and skipped
-- annotations are excluded, as are self-reports (view self_reports).
SELECT *
FROM own_answers
WHERE NOT coalesce(was_cancelled, false)
    AND face_id IS NOT NULL
    AND rater_kind IS DISTINCT FROM 'self'
    AND coalesce(label_set, 'expressions') = 'expressions'
QUALIFY row_number() OVER (
    PARTITION BY face_id, rater_id ORDER BY updated_at DESC, annotation_id DESC
) = 1
