"""Figures of the role processes for Prometheus. The only place where its client is imported.

What is counted comes in through plain callables and faustkit's `Meter`, so that no other part knows of it.
"""
