"""Whole jobs in run folders: one run, a benchmark, a comparison."""
