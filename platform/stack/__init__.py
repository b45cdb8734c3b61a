"""The local stack: environment set-up, embedded services, supervisor, ``make up`` and its demo."""
