"""Papers as measured claims: arms x seeds of a config, compared by bootstrap, recorded."""
