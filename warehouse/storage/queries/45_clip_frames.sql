-- One row per clip of a kept video, with its kept faces in order of time.
WITH one_rating AS (
    SELECT face_id, au
    FROM ratings
    QUALIFY row_number() OVER (PARTITION BY face_id ORDER BY rater_id DESC) = 1
),
frames AS (
    SELECT clips.clip_id, faces.face_id, faces.time_s, faces.crop, one_rating.au
    FROM clips
    JOIN faces
        ON faces.track_id = clips.track_id
        AND faces.batch = clips.batch
        AND faces.time_s BETWEEN clips.start_s - 1e-6 AND clips.end_s + 1e-6
    JOIN one_rating ON one_rating.face_id = faces.face_id
    WHERE clips.verdict = 'kept' AND faces.verdict = 'kept'
),
gathered AS (
    SELECT
        clip_id,
        list(face_id ORDER BY time_s, face_id) AS face_ids,
        list(time_s ORDER BY time_s, face_id) AS times,
        list(crop ORDER BY time_s, face_id) AS crops,
        list(au ORDER BY time_s, face_id) AS au
    FROM frames
    GROUP BY clip_id
)
SELECT
    clips.clip_id,
    clips.video_id,
    clips.track_id,
    identities.subject_id,
    clips.start_s,
    clips.end_s,
    clips.onset_s,
    clips.apex_s,
    clips.offset_s,
    clips.apex_au,
    clips.apex_intensity,
    clips.apex_expression,
    gathered.face_ids,
    gathered.times,
    gathered.crops,
    gathered.au,
    clips.sound,
    clips.words,
    CASE videos.source WHEN 'imported' THEN 'imported' ELSE 'real' END AS source,
    videos.licence
FROM clips
JOIN gathered ON gathered.clip_id = clips.clip_id
JOIN videos ON videos.video_id = clips.video_id AND videos.batch = clips.batch
JOIN identities ON identities.face_id = clips.apex_face_id
WHERE videos.verdict = 'kept'
QUALIFY row_number() OVER (PARTITION BY clips.clip_id ORDER BY clips.batch) = 1
ORDER BY clips.clip_id
