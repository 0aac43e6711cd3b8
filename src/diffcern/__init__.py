"""diffcern."""
