-- One row per kept face: its subject. Without face recognition this is the declared subject, else
-- the video itself, so that no split separates the faces of a video.
SELECT
    faces.face_id,
    coalesce(tracks.subject_id, 'video-' || faces.video_id) AS subject_id,
    CASE WHEN tracks.subject_id IS NULL THEN 'video' ELSE 'declared' END AS method
FROM faces
JOIN tracks ON tracks.track_id = faces.track_id
WHERE faces.verdict = 'kept'
ORDER BY faces.face_id
