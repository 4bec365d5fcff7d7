"""Finds, checks and merges models, tokenizers and LoRA adapters. Knows nothing of questions or engines."""
