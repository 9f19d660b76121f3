"""One endpoint in front of every engine: faces, guard, routes, metrics."""
