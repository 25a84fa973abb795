"""Independent looks at a sampler: a search for what it misses, and whether two samplers agree."""
