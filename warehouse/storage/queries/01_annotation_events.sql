-- One row per annotation event, with columns that files of older schemas lack.
SELECT * FROM annotations
UNION ALL BY NAME
SELECT
    NULL::VARCHAR AS label_set,
    NULL::VARCHAR[] AS labels,
    NULL::VARCHAR[] AS compounds,
    NULL::VARCHAR AS free_label,
    NULL::STRUCT(unit BIGINT, intensity DOUBLE)[] AS au,
    NULL::VARCHAR AS edited_by,
    NULL::VARCHAR AS item_kind,
    NULL::VARCHAR AS item_id,
    NULL::VARCHAR AS answers
WHERE false
