"""The fast way: requests that are asked and answered as bytes, without scope, task or ASGI."""
