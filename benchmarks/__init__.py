"""What the guard costs, next to what others cost. Run: ``python -m benchmarks``. Nothing here is a test."""
