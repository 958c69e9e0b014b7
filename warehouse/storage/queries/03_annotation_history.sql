-- One row per annotation event, with what else than its number tells annotations apart. given_at:
-- a Label Studio that was restored from an older copy gives a number again, so an annotation is
-- known by its created_at as well; numbers of imports are hashes and need none. ended_at: when the
-- annotation was last found deleted; what happened up to then is history.
SELECT
    *,
    max(CASE WHEN event = 'deleted' THEN pulled_at END) OVER (
        PARTITION BY project_id, annotation_id, given_at
    ) AS ended_at
FROM (
    SELECT *, CASE WHEN project_id < 0 THEN NULL ELSE created_at END AS given_at
    FROM annotation_events
)
