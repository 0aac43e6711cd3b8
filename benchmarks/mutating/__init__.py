"""What `benchmarks/mutation.py` is made of: the changes, and the suite that is to notice them."""
