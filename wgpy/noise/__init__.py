"""Noise_IKpsk2 and the cookie mechanism: bytes in, bytes out, without peers, a clock or randomness of their own."""
