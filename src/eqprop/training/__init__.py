"""The loop round one step: data, checkpoints, metrics, and what a run leaves behind."""
