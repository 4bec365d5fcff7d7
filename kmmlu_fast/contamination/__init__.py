"""Overlap between training data and exams, and the check on training rows. Knows no model."""
