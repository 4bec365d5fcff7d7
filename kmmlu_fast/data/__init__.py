"""Exams, questions and training rows, read from disk or the hub. Knows only core and machine."""
