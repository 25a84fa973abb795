"""What a run looks like to its user: tables in the terminal, one HTML page at the end."""
