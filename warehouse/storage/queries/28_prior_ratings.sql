-- One row per voted face: the machine rating that is the prior of its soft label. The only label of
-- an imported picture is its dataset's statement, which no machine corrects.
SELECT ratings.face_id, ratings.rater_id, ratings.expression, ratings.open_set
FROM ratings
SEMI JOIN votes ON votes.face_id = ratings.face_id
ANTI JOIN (
    SELECT face_id
    FROM current_votes
    GROUP BY face_id
    HAVING count(*) = 1 AND min(project_id) < 0
) AS stated ON stated.face_id = ratings.face_id
QUALIFY row_number() OVER (PARTITION BY ratings.face_id ORDER BY ratings.rater_id DESC) = 1
