"""Run configurations: common.py has every field, leaves override."""
