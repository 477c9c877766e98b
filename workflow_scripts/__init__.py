"""Roundhouse: post-training of language models in rounds."""
