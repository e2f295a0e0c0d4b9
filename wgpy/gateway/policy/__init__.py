"""What the gateway decides. Pure: no clock, no randomness, no input or output."""
