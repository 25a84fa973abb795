"""Modes of draws: peaks, which draws belong to which, and what each holds of the mass."""
