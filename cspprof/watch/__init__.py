"""Live editing: models whose files are watched, and what changed in them after each save."""
