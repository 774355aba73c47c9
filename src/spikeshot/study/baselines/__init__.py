"""What spiking MAML is compared with: other networks and other ways to learn the same tasks."""
