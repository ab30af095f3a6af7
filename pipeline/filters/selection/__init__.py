"""Select rows by difficulty, balance, diversity and budget."""
