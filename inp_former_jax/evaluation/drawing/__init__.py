"""Figures of several images, and what they show of each."""
