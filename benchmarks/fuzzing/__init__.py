"""What `benchmarks/fuzz.py` is made of: one module for each kind of input, and how an outcome is judged."""
