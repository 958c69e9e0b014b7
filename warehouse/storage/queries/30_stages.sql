-- One row per stage, verdict and reason: item counts that add up to the input.
SELECT 'videos' AS stage, verdict, reason, count(*) AS n FROM videos GROUP BY ALL
UNION ALL
SELECT 'faces' AS stage, verdict, reason, count(*) AS n FROM faces GROUP BY ALL
