"""Double-entry accounts in nano-dollars. Knows no tokens.

A transfer is one row that moves one positive amount from one account to another, so every transfer balances
by construction. Balances are kept by a database trigger and by nothing else; nobody may edit a transfer.
"""
