"""What is being done, told to whoever listens, and the bar that shows it."""
