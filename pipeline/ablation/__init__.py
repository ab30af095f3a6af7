"""Train students on parts of the rows: is curation worth it, and would more data help?"""
