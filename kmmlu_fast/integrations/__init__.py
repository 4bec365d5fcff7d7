"""Inside other people's training scripts: the KMMLU curve of any transformers, TRL or Unsloth trainer."""
