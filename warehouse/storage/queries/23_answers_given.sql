-- One row per face and label set: number of answers by observers, and of their raters.
SELECT
    face_id,
    coalesce(label_set, 'expressions') AS label_set,
    count(*) AS n_answers,
    count(DISTINCT rater_id) AS n_raters
FROM own_answers
WHERE NOT coalesce(was_cancelled, false)
    AND face_id IS NOT NULL
    AND rater_kind IS DISTINCT FROM 'self'
    AND len(CASE WHEN coalesce(label_set, 'expressions') = 'expressions'
        THEN answer.expressions ELSE labels END) > 0
GROUP BY ALL
