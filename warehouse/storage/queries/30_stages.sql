-- One row per stage, verdict and reason, so that what went in can be added up.
SELECT 'videos' AS stage, verdict, reason, count(*) AS n FROM videos GROUP BY ALL
UNION ALL
SELECT 'faces' AS stage, verdict, reason, count(*) AS n FROM faces GROUP BY ALL
