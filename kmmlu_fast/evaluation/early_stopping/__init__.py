"""Evaluations that stop when the question is settled."""
