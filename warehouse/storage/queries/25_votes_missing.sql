<<<<<<< HEAD:warehouse/storage/queries/25_votes_missing.sql
-- One row per queued face: votes received and votes missing.
-- A face queued by an audit counts answers, because a rater may annotate it twice. Other faces
-- count raters.
WITH counted AS (
=======
-- One row per queued face: votes given and votes missing (column owed).
-- A face queued by an audit counts answers, because a rater may answer twice. Any other face counts
-- raters.
WITH heard AS (
>>>>>>> 522d558 (Plain prose in end-to-end tests, deploy tests and queries):warehouse/storage/queries/25_votes_owed.sql
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
