-- One row per curated face with a decision (keep, review or drop) and its reasons.
-- Drop: near duplicates, and faces that most of at least three votes call open-set. Flags by audits
-- alone lead to review, because 4 of 10 flags of the label audit are correct labels.
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
