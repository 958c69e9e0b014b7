-- One row per item, label set and observer: the newest existing answer about any item but a face.
-- `answers` is JSON by question. Deleted and skipped annotations and self-reports are excluded.
SELECT
    item_kind,
    item_id,
    label_set,
    rater_id,
    rater_kind,
    project_id,
    annotation_id,
    labels,
    answers,
    updated_at
FROM own_answers
WHERE NOT coalesce(was_cancelled, false)
    AND item_id IS NOT NULL
    AND item_kind <> 'face'
    AND rater_kind IS DISTINCT FROM 'self'
QUALIFY row_number() OVER (
    PARTITION BY item_kind, item_id, label_set, rater_id
    ORDER BY updated_at DESC, annotation_id DESC
) = 1
