"""Faces made to order. Empty for now: the assets that will use it are not in the graph either."""
