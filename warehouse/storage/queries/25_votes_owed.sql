-- One row per queued face: the votes it has and those people still owe it.
-- A face asked again counts every answer, for the same people may be asked twice; any other face
-- counts people.
WITH heard AS (
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
    greatest(wanted_votes - n_votes, 0) AS owed
FROM heard
