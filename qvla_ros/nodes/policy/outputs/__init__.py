"""Robot commands as standard messages: one file an output, beside what all have in common."""
