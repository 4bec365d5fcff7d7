"""Runs on disk: our own directory, and what others write, read as one record. Knows nothing of
models or statistics.
"""
