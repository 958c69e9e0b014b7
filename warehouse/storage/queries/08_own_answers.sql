-- One row per existing annotation: the newest event by its own rater. Edits and submissions by
-- another account are excluded. If all that is left since the last deletion is by another account,
-- an earlier answer of the same rater counts.
SELECT own.* EXCLUDE (given_at, ended_at)
FROM annotation_history AS own
JOIN (
    SELECT *, CASE WHEN project_id < 0 THEN NULL ELSE created_at END AS given_at
    FROM standing_annotations
) AS standing
    ON standing.project_id IS NOT DISTINCT FROM own.project_id
    AND standing.annotation_id IS NOT DISTINCT FROM own.annotation_id
    AND standing.given_at IS NOT DISTINCT FROM own.given_at
WHERE
    own.event <> 'deleted'
    AND own.edited_by IS NULL
    AND (
        own.ended_at IS NULL
        OR own.pulled_at > own.ended_at
        OR own.rater_id IS NOT DISTINCT FROM standing.rater_id
    )
QUALIFY row_number() OVER (
    PARTITION BY own.project_id, own.annotation_id, own.given_at
    ORDER BY
        own.ended_at IS NULL OR own.pulled_at > own.ended_at DESC,
        coalesce(own.updated_at, own.pulled_at) DESC NULLS LAST,
        own.pulled_at DESC NULLS LAST,
        CASE own.event WHEN 'updated' THEN 1 ELSE 0 END DESC
) = 1
