"""Drawing images of rare diagnoses by a conditional variational autoencoder."""
