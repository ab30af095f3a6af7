"""The command line: parsing, orchestration of stages, exit codes."""
