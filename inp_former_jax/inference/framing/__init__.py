"""How images are cut into inputs of the model, and their maps put together."""
