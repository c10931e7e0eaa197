"""bidsim: an offline bid-simulation evaluator."""

__version__ = "0.1.0"
