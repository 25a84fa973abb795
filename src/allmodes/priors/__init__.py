"""A likelihood and a prior as a target: log Z is then the evidence."""
