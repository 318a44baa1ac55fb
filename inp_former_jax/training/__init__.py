"""Losses, optimizer, step, loop and checkpoints."""
