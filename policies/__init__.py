"""What is promised: the policy, its file, and the ways to carry it out."""
