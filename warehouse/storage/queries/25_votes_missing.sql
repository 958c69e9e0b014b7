-- One row per queued face: votes received and votes missing.
-- A face queued by an audit counts answers, because a rater may annotate it twice. Other faces
-- count raters.
WITH counted AS (
    SELECT
        queue.*,
        CASE
            WHEN queue.reason = 'audit' THEN coalesce(answers_given.n_answers, 0)
            ELSE coalesce(answers_given.n_raters, 0)
        END AS n_votes
    FROM queue
    LEFT JOIN answers_given
        ON answers_given.face_id = queue.face_id AND answers_given.label_set = 'expressions'
)
SELECT
    face_id,
    round,
    reason,
    wanted_votes,
    n_votes,
    greatest(wanted_votes - n_votes, 0) AS missing
FROM counted
