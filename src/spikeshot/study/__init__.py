"""Trained learners become evidence: evaluation with confidence intervals, and figures."""
