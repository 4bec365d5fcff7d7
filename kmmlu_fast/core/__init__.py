"""Shared by every wing: records, errors, files, digests, letters, the console. Imports no other wing."""
