-- One row per verdict and reason: kept faces with and without a label.
SELECT
    'labels' AS stage,
    CASE WHEN soft_labels.face_id IS NULL THEN 'dropped' ELSE 'kept' END AS verdict,
    CASE
        WHEN soft_labels.face_id IS NOT NULL THEN NULL
        WHEN repeated.face_id IS NOT NULL THEN 'near_duplicate'
        ELSE 'no_votes'
    END AS reason,
    count(*) AS n
FROM faces
LEFT JOIN soft_labels ON soft_labels.face_id = faces.face_id
LEFT JOIN (SELECT face_id FROM audits WHERE audit = 'near_duplicates' AND flag) AS repeated
    ON repeated.face_id = faces.face_id
WHERE faces.verdict = 'kept'
GROUP BY ALL
