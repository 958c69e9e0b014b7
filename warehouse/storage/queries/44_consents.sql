-- One row per consent text in videos.csv: number of videos with curated faces.
SELECT consent, count(DISTINCT video_id) AS n
FROM curated_faces
GROUP BY ALL
ORDER BY n DESC, consent
