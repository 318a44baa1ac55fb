"""Folders as their makers lay them out -> records, a module per layout."""
