"""What the replications share: models, losses, metrics, likelihoods, data sets, runs and reports. Knows no paper."""
