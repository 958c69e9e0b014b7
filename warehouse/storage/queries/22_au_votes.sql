-- One row per face, rater and action unit coded by a person; intensity 0: inactive.
SELECT face_id, rater_id, coded.unit AS unit, coded.intensity AS intensity, updated_at
FROM (SELECT face_id, rater_id, unnest(au) AS coded, updated_at FROM current_votes)
WHERE coded.unit IS NOT NULL
