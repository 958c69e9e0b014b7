-- One row per annotation that exists on the server, skips included: its newest event.
SELECT *
FROM (
    SELECT *
    FROM annotation_events
    QUALIFY row_number() OVER (
        PARTITION BY project_id, annotation_id
        ORDER BY
            coalesce(updated_at, pulled_at) DESC NULLS LAST,
            pulled_at DESC NULLS LAST,
            -- Two events of one pull can have the same time: order them by kind.
            CASE event WHEN 'deleted' THEN 2 WHEN 'updated' THEN 1 ELSE 0 END DESC
    ) = 1
)
WHERE event <> 'deleted'
