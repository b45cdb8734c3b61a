"""How a worker belongs to the utility: enrolment, identity, heartbeats."""
