-- One row per video that people can watch: kept, or decoded without a usable face.
SELECT *
FROM videos
WHERE verdict = 'kept' OR split_part(reason, ':', 1) IN ('no_face', 'no_usable_face')
