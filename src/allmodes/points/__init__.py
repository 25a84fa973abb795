"""Points of a density: the buffer that holds them, the frame they live in, their weights, what
they have cost.
"""
