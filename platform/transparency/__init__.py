"""What anybody can check: receipts signed by both witnesses. Pure, no Django, knows no prices' meaning."""
