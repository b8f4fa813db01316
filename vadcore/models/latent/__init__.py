"""What latent video prediction is made of: front ends between frames and latent points, densities over the points, and the
points of whole clips, encoded once."""
