-- One row per face that people voted on, with what the audits said of it: a release in waiting.
-- A flag is null where its audit has not looked at the face.
WITH audited AS (
    SELECT
        face_id,
        max(score) FILTER (audit = 'label_noise') AS label_quality,
        bool_or(flag) FILTER (audit = 'label_noise') AS is_label_issue,
        max(score) FILTER (audit = 'open_set') AS open_set_score,
        bool_or(flag) FILTER (audit = 'open_set') AS is_open_set,
        max(detail) FILTER (audit = 'near_duplicates' AND flag) AS duplicate_of
    FROM audits
    GROUP BY face_id
),
-- Action units of one machine rater; two of them must not make two rows of a face.
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
    audited.duplicate_of,
    CASE videos.source WHEN 'imported' THEN 'imported' ELSE 'real' END AS source,
    videos.licence
FROM faces
JOIN videos ON videos.video_id = faces.video_id AND videos.batch = faces.batch
JOIN soft_labels ON soft_labels.face_id = faces.face_id
JOIN identities ON identities.face_id = faces.face_id
LEFT JOIN one_rating ON one_rating.face_id = faces.face_id
LEFT JOIN audited ON audited.face_id = faces.face_id
WHERE faces.verdict = 'kept' AND videos.verdict = 'kept'
QUALIFY row_number() OVER (PARTITION BY faces.face_id ORDER BY faces.batch) = 1
ORDER BY faces.face_id
