"""Runs: their folders, locks and recipes, the processes that train them, and the signals that end them."""
