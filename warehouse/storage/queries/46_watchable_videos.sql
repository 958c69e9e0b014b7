-- One row per video that people can watch: kept, or decoded without a usable face.
-- No split_part: DuckDB 2.0 cannot bind it in a filter on a column that is null in every row.
SELECT *
FROM videos
WHERE verdict = 'kept' OR reason = 'no_face' OR reason = 'no_usable_face'
    OR reason LIKE 'no_face:%' OR reason LIKE 'no_usable_face:%'
