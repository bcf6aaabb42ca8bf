"""Losses with a textbook form, each summed over pixels and kept per image."""
