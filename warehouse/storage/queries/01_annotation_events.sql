-- One row per event of an annotation, with the columns that files of older homes do not have.
SELECT * FROM annotations
UNION ALL BY NAME
SELECT
    NULL::VARCHAR AS label_set,
    NULL::VARCHAR[] AS labels,
    NULL::VARCHAR[] AS compounds,
    NULL::VARCHAR AS free_label,
    NULL::STRUCT(unit BIGINT, intensity DOUBLE)[] AS au,
    NULL::VARCHAR AS edited_by
WHERE false
