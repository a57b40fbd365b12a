"""What was measured: the loss increase of every choice, and the latency of every kernel on this machine."""
