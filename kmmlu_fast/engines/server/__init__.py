"""Any vLLM server behind an OpenAI-compatible address."""
