"""How one inner step changes weights, in three slots: credit, transform, apply."""
