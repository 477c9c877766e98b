"""Dialogues of a recommender with a seeker: items and which of them an utterance means, the players, and data sets."""
