"""From an encoder's name to its weights: sources, files, naming rules."""
