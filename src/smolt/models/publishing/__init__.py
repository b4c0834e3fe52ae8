"""A model handed on: the card that says what it is, and a hub's repository with its files."""
