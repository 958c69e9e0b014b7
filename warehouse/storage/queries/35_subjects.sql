-- One row per kept face: whose face it is. Until faces are recognised, a subject is the one
-- declared beside the video, else the video itself: its people must never be parted by a split.
SELECT
    faces.face_id,
    coalesce(tracks.subject_id, 'video-' || faces.video_id) AS subject_id,
    CASE WHEN tracks.subject_id IS NULL THEN 'video' ELSE 'declared' END AS method
FROM faces
JOIN tracks ON tracks.track_id = faces.track_id
WHERE faces.verdict = 'kept'
ORDER BY faces.face_id
