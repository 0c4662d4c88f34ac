"""Personal data in texts: found by Presidio's recognizers, hidden by edits."""
