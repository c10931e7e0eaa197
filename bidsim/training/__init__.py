"""The improvement loop: extract examples from a scenario's log, train, tune, and run the steps from log to report.

Each module is one step and a function of its inputs; the command line, Luigi and a container only call them.
"""
