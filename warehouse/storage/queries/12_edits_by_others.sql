-- One row per event in which one account edited another's annotation or submitted in its name.
SELECT
    project_id,
    annotation_id,
    face_id,
    rater_id,
    edited_by,
    CASE event WHEN 'created' THEN 'submitted in their name' ELSE 'edited' END AS what,
    answer.expressions AS expressions,
    updated_at
FROM annotation_events
WHERE edited_by IS NOT NULL AND event <> 'deleted'
ORDER BY updated_at, project_id, annotation_id
