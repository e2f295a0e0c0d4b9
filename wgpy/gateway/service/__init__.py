"""What runs: it follows the store and the clients, and begins and ends sessions."""
