-- What the people in the videos of curated faces agreed to, in the words of videos.csv.
SELECT consent, count(DISTINCT video_id) AS n
FROM curated_faces
GROUP BY ALL
ORDER BY n DESC, consent
