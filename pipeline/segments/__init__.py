"""Segments: stretches of a video that people label as one item.

``sources`` says where they come from (a sidecar, a transcript, windows, shots), ``media`` cuts
their video and sound, ``batch`` writes the table of a batch.
"""
