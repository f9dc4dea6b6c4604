"""The one exception, and the one warning, that a user is meant to read."""

from __future__ import annotations


class QvlaError(Exception):
    """Bad input: the key, the value found, what was expected, and a fix.

    key: what was wrong (an option, a manifest key, a topic, a file); value: what was found;
    expected: what would have been right; fix: the command or the edit that puts it right.
    """

    def __init__(self, key: str, value: object, expected: str, fix: str) -> None:
        self.key = key
        self.value = value
        self.expected = expected
        self.fix = fix
        super().__init__(f"{key}: got {value}; expected {expected}. Fix: {fix}")

    def __reduce__(self) -> tuple[type[QvlaError], tuple[str, object, str, str]]:
        """Pickles the four arguments, so that the error passes through a process pool.

        An exception would send its message alone.
        """
        return QvlaError, (self.key, str(self.value), self.expected, self.fix)


class QvlaWarning(UserWarning):
    """Warns that something was assumed which no file states.

    One sentence, with what to do if it is not so.
    """
