"""The configs of runs: common.py has every field, the others override some."""
