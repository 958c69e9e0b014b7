-- One row per kept segment and label set of its votes: candidates for a release.
-- `answered` says whether any rater answered a question about it.
WITH answers AS (
    SELECT item_id FROM item_votes WHERE item_kind = 'segment'
    UNION
    SELECT item_id FROM texts WHERE item_kind = 'segment'
    UNION
    SELECT item_id FROM spans WHERE item_kind = 'segment'
),
cut AS (
    SELECT segments.*, videos.licence, videos.consent, videos.subject_id, videos.source AS origin
    FROM segments
    JOIN watchable_videos AS videos
        ON videos.video_id = segments.video_id AND videos.batch = segments.batch
    WHERE segments.verdict = 'kept'
    QUALIFY row_number() OVER (PARTITION BY segment_id ORDER BY segments.batch) = 1
)
SELECT
    cut.segment_id,
    cut.video_id,
    -- Without named people the video is a subject of its own, as in face_subjects.
    CASE
        WHEN len(cut.subject_ids) > 0 THEN cut.subject_ids
        ELSE [coalesce(cut.subject_id, 'video-' || cut.video_id)]
    END AS subject_ids,
    cut.kind,
    cut.start_s,
    cut.end_s,
    cut.dialogue_id,
    cut.turn,
    cut.speaker,
    cut.role,
    cut.transcript,
    cut.language,
    cut.video,
    cut.sound,
    labels.label_set,
    labels.distribution,
    labels.open_set_share,
    labels.n_votes,
    labels.entropy,
    labels.agreement,
    CASE cut.origin WHEN 'imported' THEN 'imported' ELSE 'real' END AS source,
    cut.licence,
    cut.consent,
    answers.item_id IS NOT NULL AS answered
FROM cut
LEFT JOIN answers ON answers.item_id = cut.segment_id
LEFT JOIN soft_labels AS labels
    ON labels.item_kind = 'segment' AND labels.item_id = cut.segment_id
ORDER BY cut.segment_id, labels.label_set
