"""The one error a user is meant to see."""


class PipelineError(Exception):
    """Something the user can put right. Printed as one line, exit code 1.

    The message reads "where: what is wrong, got what; what to do".
    """
