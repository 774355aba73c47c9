"""Recordings become episodes: events, readers, the camera model, corpora and episode sampling."""
