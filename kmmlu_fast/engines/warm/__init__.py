"""An engine that outlives the commands that ask it: one process per user keeps it, over a Unix socket."""
