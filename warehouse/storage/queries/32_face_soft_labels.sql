-- One row per face with votes about the eight expressions, in the columns before label sets.
SELECT face_id, expression, open_set_share, n_votes, entropy, agreement, valence, arousal, au,
    method
FROM soft_labels
WHERE face_id IS NOT NULL AND coalesce(label_set, 'expressions8') = 'expressions8'
