"""The commands of the command line: a dataclass of options each, parsed by tyro, and a thin
function.
"""
