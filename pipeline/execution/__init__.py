"""What all stages share: the contract, the runner, fingerprints, manifests, signals, progress."""
