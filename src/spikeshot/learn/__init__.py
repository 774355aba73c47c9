"""An episode becomes better parameters: rules, adaptation, meta-gradients and meta-training.

This room knows no network: `forward(params, frames) -> logits` and `loss(logits, labels)` come in
as callables.
"""
