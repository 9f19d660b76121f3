"""What a load test found, for people and programs: console, JSON, CSV, HTML, Markdown, HdrHistogram."""
