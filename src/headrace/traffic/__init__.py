"""Between asking and answering: admission, retries, routes and the record of it all."""
