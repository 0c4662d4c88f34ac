"""Llama Guard: a safety model, in this process or behind an address."""
