"""What is run: the artifact and the C++ runtime that executes it."""
