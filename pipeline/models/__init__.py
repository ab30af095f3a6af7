"""One interface for teacher, student and judge, and the backends that implement it."""
