"""Anytime-valid tests along one random order of the questions."""
