-- One row per verdict and reason: counts of synthetic faces.
SELECT
    'synthetic faces' AS stage,
    CASE WHEN action IN ('kept', 'relabelled') THEN 'kept' ELSE 'dropped' END AS verdict,
    CASE
        WHEN action = 'kept' THEN NULL
        WHEN action = 'relabelled' THEN 'relabelled'
        ELSE coalesce(split_part(reason, ':', 1), 'no reason given')
    END AS reason,
    count(*) AS n
FROM synthetic_faces
GROUP BY ALL
