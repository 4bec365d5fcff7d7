"""Transformers in process: batching, scoring, decoding."""
