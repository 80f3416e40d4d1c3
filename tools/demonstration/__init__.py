"""What `tools/demo` shows: `files.py` and `keys.py` are its two acts, `steps.py` prints them."""
