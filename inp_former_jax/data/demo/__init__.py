"""The demo data set: procedural parts with and without defects."""
