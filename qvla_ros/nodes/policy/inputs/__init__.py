"""The policy node's subscriptions: messages in, complete observations out."""
