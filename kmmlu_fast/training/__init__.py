"""From training rows to a LoRA adapter: encoding, memory plan, Unsloth, card. Knows nothing of reports."""
