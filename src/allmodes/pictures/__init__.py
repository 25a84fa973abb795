"""Pictures of arrays, in one look: they know of no run and no sampler."""
