"""What runs on a Ray cluster of this machine."""
