-- One row per existing annotation: the newest event by its own rater. Edits and submissions by
-- another account are excluded.
SELECT own.*
FROM (
    SELECT *
    FROM annotation_events
    WHERE event <> 'deleted' AND edited_by IS NULL
    QUALIFY row_number() OVER (
        PARTITION BY project_id, annotation_id
        ORDER BY
            coalesce(updated_at, pulled_at) DESC NULLS LAST,
            pulled_at DESC NULLS LAST,
            CASE event WHEN 'updated' THEN 1 ELSE 0 END DESC
    ) = 1
) AS own
SEMI JOIN standing_annotations AS standing
    ON standing.project_id IS NOT DISTINCT FROM own.project_id
    AND standing.annotation_id IS NOT DISTINCT FROM own.annotation_id
