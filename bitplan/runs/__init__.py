"""Run folders: what the commands that work in an output folder leave of themselves there, and the list of them."""
