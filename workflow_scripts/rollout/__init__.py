"""Rollouts: how a policy and an environment take turns, from a prompt to the end of an answer."""
