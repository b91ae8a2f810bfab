"""Reward models from labels that may be wrong, judged by what they pick."""
