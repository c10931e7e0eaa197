"""Hostile input, made by seed: what an enemy, or an accident, could put into a scenario, an expression, a bundle, a log, a
name or a run's folder, and how a command must end that is given it. `tests/benchmarks/fuzz_input.py` runs many."""
