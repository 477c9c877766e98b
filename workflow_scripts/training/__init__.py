"""The training core: bins, attention without padding, log-probs, objectives and the trainer."""
