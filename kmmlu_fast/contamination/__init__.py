"""Overlap between training data and exams. Knows nothing of models."""
