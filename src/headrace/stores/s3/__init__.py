"""Objects in S3, and in the servers that speak it: asked over our own transport."""
