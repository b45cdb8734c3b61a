"""Makes fixed-routing profiles from text, shows them, and measures what they cost in quality."""
