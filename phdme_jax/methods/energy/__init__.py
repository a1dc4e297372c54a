"""Methods that learn an energy: the prior, its rollouts, and generators trained on them."""
