-- One row per kept face of a declared subject, near duplicates excluded: faces for self-reports.
SELECT faces.face_id, tracks.subject_id, faces.crop, faces.context
FROM faces
JOIN tracks ON tracks.track_id = faces.track_id
WHERE faces.verdict = 'kept'
    AND tracks.subject_id IS NOT NULL
    AND faces.face_id NOT IN (
        SELECT face_id FROM audits WHERE audit = 'near_duplicates' AND flag
    )
