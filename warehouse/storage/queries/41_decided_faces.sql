-- One row per curated face with what to do about it: keep, review or drop, and why.
-- Dropped is what shows nothing new or nothing known: a repeat, or a face of which three people or
-- more mostly say that it shows no expression. What only a machine doubts is looked at again, never
-- dropped: four in ten flags of the label audit are good labels.
WITH judged AS (
    SELECT
        *,
        list_filter(
            [
                CASE WHEN duplicate_of IS NOT NULL THEN 'near_duplicate' END,
                CASE
                    WHEN open_set_share >= 0.5 AND n_votes >= 3 THEN 'open_set by votes'
                END,
                CASE WHEN soft_label IS NULL AND n_votes < 3 THEN 'no closed vote' END
            ],
            lambda reason: reason IS NOT NULL
        ) AS against,
        list_filter(
            [
                CASE WHEN is_label_issue THEN 'label_noise' END,
                CASE WHEN is_open_set THEN 'open_set' END
            ],
            lambda reason: reason IS NOT NULL
        ) AS doubts
    FROM curated_faces
)
SELECT
    * EXCLUDE (against, doubts),
    CASE
        WHEN list_has_any(against, ['near_duplicate', 'open_set by votes']) THEN 'drop'
        WHEN len(against) + len(doubts) > 0 THEN 'review'
        ELSE 'keep'
    END AS decision,
    list_concat(against, doubts) AS reasons
FROM judged
ORDER BY face_id
