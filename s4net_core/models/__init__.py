"""Networks and their weights files."""
