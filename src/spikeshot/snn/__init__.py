"""Frames become logits: surrogates, the neuron, layers and networks as pure functions."""
