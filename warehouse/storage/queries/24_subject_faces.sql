-- One row per kept face of a declared subject that repeats no other: what that person can be asked
-- about themselves.
SELECT faces.face_id, tracks.subject_id, faces.crop, faces.context
FROM faces
JOIN tracks ON tracks.track_id = faces.track_id
WHERE faces.verdict = 'kept'
    AND tracks.subject_id IS NOT NULL
    AND faces.face_id NOT IN (
        SELECT face_id FROM audits WHERE audit = 'near_duplicates' AND flag
    )
