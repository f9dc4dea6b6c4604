"""Exit codes of the commands and the nodes of this package; 0 is success, 1 is the verb's own."""

from __future__ import annotations

BAD_INPUT = 2  # as argparse, for what a user can fix
LOST = 3  # a policy or a node ended before its work was done
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE
