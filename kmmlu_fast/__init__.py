"""kmmlu_fast: measure and improve language models on KMMLU, on one GPU."""

__version__ = "0.1.0"
