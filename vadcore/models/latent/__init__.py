"""Parts of the latent LSTM: encoders and decoders of single frames, densities of latent vectors, cached encoded clips."""
