"""Plans, realises and runs mixed-precision networks under a latency target and a byte budget."""

__version__ = "0.1.0"
