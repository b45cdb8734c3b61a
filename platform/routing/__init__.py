"""Which partner serves a request: a pure function of policy, snapshot, request and seed."""
