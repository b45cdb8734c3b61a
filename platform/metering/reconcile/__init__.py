"""Do both witnesses agree? Workers' journals against usage records, and usage records against the ledger.

``report.reconcile`` compares; ``python -m metering.reconcile`` prints. Nothing is changed by either.
"""
