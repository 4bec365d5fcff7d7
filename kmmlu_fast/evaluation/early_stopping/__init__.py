"""Evaluations that stop as soon as the question is decided."""
