"""Profiles, chunk plan, streaming writer, clean-up, chunk reading and verification. No database needed."""
