"""The one exception, and the one warning, that a user is meant to read."""

from __future__ import annotations

import errno

# For an error of a library whose cause this project does not know: no advice is better than wrong.
NO_KNOWN_FIX = "the cause is not known here; the message is that of the library that failed"

_OS_FIXES = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path: a part of it is a file",
    errno.EISDIR: "name a file: this is a directory",
    errno.EACCES: "check its permissions (ls -l), and the user that runs this",
    errno.EPERM: "check its permissions (ls -l), and the user that runs this",
    errno.EROFS: "name a place that can be written: this file system is read-only",
    errno.ENOSPC: "free some space there, or name another place",
    errno.EDQUOT: "free some of your quota there, or name another place",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "check its links: they lead round in a circle",
    errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
    errno.EIO: "check the disk or the network behind it: it could not be read",
    errno.ESTALE: "mount the network file system again",
}


def os_error_fix(error: OSError) -> str:
    """What mends a failure of the operating system, by its number; NO_KNOWN_FIX for others."""
    return _OS_FIXES.get(error.errno or 0, NO_KNOWN_FIX)


def quoted(value: object) -> str:
    """The value as Python writes it, 80 characters of it at most."""
    # What is cut from a text first need not be written.
    text = repr(value[:80] if isinstance(value, str) else value)
    is_whole = len(text) <= 80 and not (isinstance(value, str) and len(value) > 80)
    return text if is_whole else text[:77] + "..."


class QvlaError(Exception):
    """Bad input: the key, the value found, what was expected, and a fix.

    key: what was wrong (an option, a manifest key, a topic, a file); value: what was found;
    expected: what would have been right; fix: the command or the edit that puts it right, "" where
    `expected` says all of it.
    """

    def __init__(self, key: str, value: object, expected: str, fix: str = "") -> None:
        self.key = key
        self.value = value
        self.expected = expected
        self.fix = fix
        advice = f". Fix: {fix}" if fix else ""
        super().__init__(f"{key}: got {value}; expected {expected}{advice}")

    def __reduce__(self) -> tuple[type[QvlaError], tuple[str, object, str, str]]:
        """Pickles the four arguments, so that the error passes through a process pool.

        An exception would send its message alone.
        """
        return QvlaError, (self.key, str(self.value), self.expected, self.fix)


class QvlaWarning(UserWarning):
    """Warns that something was assumed which no file states.

    One sentence, with what to do if it is not so.
    """
