"""Results as sentences, English and Korean."""
