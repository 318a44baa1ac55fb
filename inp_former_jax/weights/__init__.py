"""An encoder's name -> its weights: sources, files, naming rules."""
