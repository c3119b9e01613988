"""Functions of records: rows, stages, comparisons, hashes, verification. They never trace a model."""
