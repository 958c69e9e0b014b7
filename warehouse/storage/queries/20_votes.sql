-- One row per face, rater and chosen answer; the weights of one rater on one face sum to 1.
SELECT
    face_id,
    rater_id,
    rater_kind,
    unnest(answer.expressions) AS label,
    1.0 / len(answer.expressions) AS weight,
    answer.valence AS valence,
    answer.arousal AS arousal,
    updated_at
FROM current_votes
WHERE len(answer.expressions) > 0
