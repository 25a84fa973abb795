"""The diffusion: noise, posterior estimates, networks, paths and their weights, corrections."""
