"""A verb as a process: flags, help, exit codes, signals, crashes. Knows nothing of what the verb does."""
