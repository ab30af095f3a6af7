"""Run untrusted checks in processes that are confined and can be killed."""
