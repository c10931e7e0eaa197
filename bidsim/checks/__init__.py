"""The data check: is this log fit to be replayed, and do the models see what production saw?"""
