"""The face that users import: synchronous and asynchronous clients."""
