"""The model that is evaluated, trained and diagnosed if none is named. Imports nothing."""

DEFAULT_MODEL = "skt/A.X-4.0-Light"
