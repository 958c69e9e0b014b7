-- One row per kept face that repeats no other: its answers to the coarse question. Nothing queues
-- that question; it follows the kept faces.
SELECT faces.face_id, coalesce(answers_given.n_raters, 0) AS n_votes
FROM faces
LEFT JOIN answers_given
    ON answers_given.face_id = faces.face_id AND answers_given.label_set = 'coarse'
WHERE faces.verdict = 'kept'
    AND faces.face_id NOT IN (
        SELECT face_id FROM audits WHERE audit = 'near_duplicates' AND flag
    )
