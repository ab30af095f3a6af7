"""The stages of a run, a module each. They import nothing of one another and meet in files."""
