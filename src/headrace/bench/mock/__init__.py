"""An exact server of our faces, whose every delay and fault is set: what a load test is judged by."""
