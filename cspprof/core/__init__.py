"""Plain data and integer arithmetic that every other room builds on. No torch."""
