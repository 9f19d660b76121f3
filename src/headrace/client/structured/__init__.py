"""Answers as objects: what to ask for, how an answer is read, and when it is asked for again."""
