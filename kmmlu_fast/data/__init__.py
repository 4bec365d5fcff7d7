"""Questions, subjects and training rows on disk, and the guard that tells whether they overlap.
Knows only core.
"""
