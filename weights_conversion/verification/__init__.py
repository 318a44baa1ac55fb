"""Parts of `verify`, which compares with arrays of the original."""
