"""Runs: what they are, where they are kept, and who computes them."""
