"""A chain on several machines: its rows in partitions, each with a journal of its own."""
