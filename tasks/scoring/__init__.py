"""Code shared by the stages score and fuse: results, curves, pictures."""
