"""headrace: carry requests to language models and gauge the flow."""
