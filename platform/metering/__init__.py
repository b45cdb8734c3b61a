"""Usage events into the ledger, exactly once. ``events`` is free of Django: gateways import it."""
