-- One row per kept face, near duplicates excluded: answers with the coarse label set. That label
-- set has no queue; all kept faces are asked.
SELECT faces.face_id, coalesce(answers_given.n_raters, 0) AS n_votes
FROM faces
LEFT JOIN answers_given
    ON answers_given.face_id = faces.face_id AND answers_given.label_set = 'coarse'
WHERE faces.verdict = 'kept'
    AND faces.face_id NOT IN (
        SELECT face_id FROM audits WHERE audit = 'near_duplicates' AND flag
    )
