"""What a profile found, for people and programs: HTML, Markdown, JSON, a table of operators."""
