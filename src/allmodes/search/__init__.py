"""Where a density has its mass, from the density alone, and whether something was overlooked."""
