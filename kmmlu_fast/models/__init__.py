"""Models, tokenizers and LoRA adapters: found, checked, merged. Knows nothing of questions or engines."""
