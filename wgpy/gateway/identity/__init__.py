"""How people prove who they are. Each way answers with one `Person`, which `store.users.take_in` makes a user of."""
