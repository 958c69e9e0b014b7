"""From faces in time to clips: what moved and when, what was seen, heard and said meanwhile."""
