"""Cut tracks into clips: facial movements with sound, words and video."""
