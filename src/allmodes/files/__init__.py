"""What is on the disk: files that are whole or not there, locks, checkpoints, run folders."""
