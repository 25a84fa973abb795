"""Draws, what can be told from them alone, and the forms in which others want them."""
