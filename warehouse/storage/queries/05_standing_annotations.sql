-- One row per annotation that exists on the server, skips included: its newest event since it was
-- last deleted.
SELECT * EXCLUDE (given_at, ended_at)
FROM annotation_history
WHERE event <> 'deleted' AND (ended_at IS NULL OR pulled_at > ended_at)
QUALIFY row_number() OVER (
    PARTITION BY project_id, annotation_id, given_at
    ORDER BY
        coalesce(updated_at, pulled_at) DESC NULLS LAST,
        pulled_at DESC NULLS LAST,
        -- Two events of one pull can have the same time: order them by kind.
        CASE event WHEN 'updated' THEN 1 ELSE 0 END DESC
) = 1
