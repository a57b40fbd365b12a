"""Coders of sparse signs that the encoding `xor` is compared with."""
