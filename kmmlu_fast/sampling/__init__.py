"""Weak subjects to training questions: plan, draw, rationales, data card. Knows nothing of training."""
