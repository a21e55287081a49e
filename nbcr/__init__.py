"""nbcr."""
