"""Other projects' own tests, run against our gateway with the real model: slow jobs, by hand."""
