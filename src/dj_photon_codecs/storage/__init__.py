"""Profiles, chunk plan, streaming writer, clean-up, chunk reading and verification. Knows no database."""
