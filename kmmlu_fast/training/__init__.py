"""Training rows to a LoRA adapter: encoding, memory plan, Unsloth, monitor, card. Knows nothing
of reports.
"""
