"""Parts of the documentation's site that Sphinx does not bring: see `extensions` in conf.py."""
