"""Records as files, and the cache of records."""
