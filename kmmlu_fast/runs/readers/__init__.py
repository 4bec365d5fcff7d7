"""Readers of runs, one module per program. ``registry`` lists them."""
