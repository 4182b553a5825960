"""The one error that means: the user can mend this."""


class UserError(ValueError):
    """Bad input (a key, a path, a name). Scripts print its text, which names thing and remedy, and exit with 2."""
