"""Reject samples with personal data or credentials."""
