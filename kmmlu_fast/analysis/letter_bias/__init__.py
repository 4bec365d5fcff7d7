"""Letter bias: how much of a difference is a preference for letters."""
