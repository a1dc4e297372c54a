"""Pictures and sections that studies share, and the pages of finished studies."""
