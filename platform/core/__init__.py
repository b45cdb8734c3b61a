"""What every package stands on: clock, ids, money, errors, secrets, signing, logs. Knows no Django."""
