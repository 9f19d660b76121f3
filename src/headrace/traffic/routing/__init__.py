"""Which of several backends is asked first, and which after it."""
