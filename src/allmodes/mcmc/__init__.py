"""Moves that leave the target invariant, and the searches that come before them."""
