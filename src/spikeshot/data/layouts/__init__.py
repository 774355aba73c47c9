"""Layouts: where a corpus keeps its recordings, and what a file's place says about it."""
