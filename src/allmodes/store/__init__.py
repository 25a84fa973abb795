"""Targets, methods and samplers by name, file or run folder."""
