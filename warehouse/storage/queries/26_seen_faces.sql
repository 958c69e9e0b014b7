-- One row per face and rater that answered or skipped it.
SELECT DISTINCT face_id, rater_id, rater_kind
FROM standing_annotations
WHERE face_id IS NOT NULL
