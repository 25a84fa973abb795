"""Posteriors of models from the literature: densities as they are met, whose draws are judged by a
reference.
"""
