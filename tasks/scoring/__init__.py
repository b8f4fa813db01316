"""What the stages score and fuse share: results, curves, pictures."""
