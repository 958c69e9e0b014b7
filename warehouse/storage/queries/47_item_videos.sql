-- One row per item other than a face: the video that it is part of.
SELECT 'segment' AS item_kind, segment_id AS item_id, video_id FROM segments
UNION
SELECT 'clip', clip_id, video_id FROM clips
UNION
SELECT 'dialogue', video_id || '-d-' || dialogue_id, video_id
FROM segments
WHERE dialogue_id IS NOT NULL
UNION
SELECT unnest(['video', 'picture']), video_id, video_id FROM videos
