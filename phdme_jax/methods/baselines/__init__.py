"""What the methods are compared with: other ways of learning from the same data, and other packages."""
