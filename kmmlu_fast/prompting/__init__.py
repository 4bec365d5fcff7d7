"""From a question to token ids, and from what came back to a prediction. Knows nothing of engines or runs."""
