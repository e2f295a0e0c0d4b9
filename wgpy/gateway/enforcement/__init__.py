"""How the policy is kept: nftables, in a table that outlives this process."""
