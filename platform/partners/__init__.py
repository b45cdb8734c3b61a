"""Member clouds: pools, dated offers, one-time enrolment tokens, and the workers enrolled with them."""
