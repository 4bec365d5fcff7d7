"""Letter bias: what of a difference is a preference for letters."""
