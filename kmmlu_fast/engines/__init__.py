"""Token ids in, log-probabilities and texts out. Knows nothing of KMMLU: neither what a
question is nor what a letter means.
"""
