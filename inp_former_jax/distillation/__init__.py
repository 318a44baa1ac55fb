"""Parts of `distill.py`, which distils an encoder into a smaller one."""
