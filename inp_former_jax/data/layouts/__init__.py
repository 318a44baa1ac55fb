"""Readers of data sets as published, from folders to records, by layout."""
