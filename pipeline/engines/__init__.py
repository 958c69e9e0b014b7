"""What runs a fan-out: processes of this machine, or a Ray cluster. Chosen by pipeline.fanout."""
