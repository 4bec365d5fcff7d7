"""What every wing stands on: records, errors, flags, files, digests, letters, the console.
Knows no other wing.
"""
