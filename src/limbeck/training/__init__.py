"""The one loop, and what it stands on: device, precision, optimisers, checkpoints, what is watched."""
