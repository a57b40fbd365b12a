"""What is chosen: one integer program over the measured profiles."""
