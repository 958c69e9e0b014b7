-- One row per face with votes, with its audit results: candidates for a release.
-- A flag is null if its audit has not covered the face.
WITH RECURSIVE repeats AS (
    SELECT face_id, max(detail) AS original
    FROM audits
    WHERE audit = 'near_duplicates' AND flag AND detail IS NOT NULL
    GROUP BY face_id
),
-- Duplicates can form chains, whose end stands for all of them. The length limit ends cycles.
chains AS (
    SELECT face_id, original, 1 AS length FROM repeats
    UNION ALL
    SELECT chains.face_id, repeats.original, chains.length + 1
    FROM chains
    JOIN repeats ON repeats.face_id = chains.original
    WHERE chains.length < 50 AND repeats.original <> chains.face_id
),
duplicates AS (
    SELECT face_id, arg_max(original, length) AS duplicate_of FROM chains GROUP BY face_id
),
audited AS (
    SELECT
        face_id,
        max(score) FILTER (audit = 'label_noise') AS label_quality,
        bool_or(flag) FILTER (audit = 'label_noise') AS is_label_issue,
        max(score) FILTER (audit = 'open_set') AS open_set_score,
        bool_or(flag) FILTER (audit = 'open_set') AS is_open_set
    FROM audits
    GROUP BY face_id
),
-- Action units of one machine rater, so that two raters do not double a face.
one_rating AS (
    SELECT face_id, au
    FROM ratings
    QUALIFY row_number() OVER (PARTITION BY face_id ORDER BY rater_id DESC) = 1
)
SELECT
    faces.face_id,
    faces.video_id,
    faces.track_id,
    identities.subject_id,
    faces.time_s,
    faces.crop,
    soft_labels.expression AS soft_label,
    soft_labels.open_set_share,
    soft_labels.n_votes,
    soft_labels.entropy,
    one_rating.au,
    soft_labels.valence,
    soft_labels.arousal,
    audited.label_quality,
    audited.is_label_issue,
    audited.open_set_score,
    audited.is_open_set,
    duplicates.duplicate_of,
    CASE videos.source WHEN 'imported' THEN 'imported' ELSE 'real' END AS source,
    videos.licence,
    videos.consent,
    faces.bbox,
    faces.keypoints,
    faces.yaw,
    faces.pitch,
    faces.roll,
    faces.frame,
    CASE WHEN videos.width > 0 AND videos.height > 0 THEN [videos.width, videos.height] END
        AS frame_size
FROM faces
JOIN videos ON videos.video_id = faces.video_id AND videos.batch = faces.batch
JOIN soft_labels ON soft_labels.face_id = faces.face_id
JOIN identities ON identities.face_id = faces.face_id
LEFT JOIN one_rating ON one_rating.face_id = faces.face_id
LEFT JOIN audited ON audited.face_id = faces.face_id
LEFT JOIN duplicates ON duplicates.face_id = faces.face_id
WHERE faces.verdict = 'kept' AND videos.verdict = 'kept'
QUALIFY row_number() OVER (PARTITION BY faces.face_id ORDER BY faces.batch) = 1
ORDER BY faces.face_id
