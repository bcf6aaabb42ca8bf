"""One folder a paper. Each reads alone: config, networks, train, evaluate, claims, card."""
