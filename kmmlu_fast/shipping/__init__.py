"""Exports what was trained, checks that it is what was measured, and publishes both."""
