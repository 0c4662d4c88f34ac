"""Prompt injection and jailbreaks: known patterns over readable views of a text."""
