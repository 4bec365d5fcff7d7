"""Runs on disk, ours and other tools', read as one record. Knows nothing of models or statistics."""
