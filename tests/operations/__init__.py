"""Rehearsals of what runs elsewhere: the GPU job's steps, shared storage. `make operations` runs them."""
