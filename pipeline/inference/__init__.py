"""Ask a model for many rows and store each answer durably."""
