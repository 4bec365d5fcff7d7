"""vLLM in process: arguments, adapters written into its weights, late tokenizer, errors."""
