"""What people and machines say a face shows, and how far to believe it."""
