"""Several workers for one interface: processes that divide its peers among them."""
