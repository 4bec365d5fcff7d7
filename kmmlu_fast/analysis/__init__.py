"""Statistics: frames in, frames and frozen records out. Knows nothing of models, engines or languages."""
