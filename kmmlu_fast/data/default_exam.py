"""The exam that is asked, and where its rows are, if none is named. Imports nothing."""

DEFAULT_EXAM = "kmmlu"
DEFAULT_DATASET = "HAERAE-HUB/KMMLU"  # where KMMLU's rows are
