"""What the stages hand to each other before training: one function to write an artifact and one to read it, both checking.

Paths are relative to the project's root, which is every stage's working directory; `dvc.yaml` names the same ones.
"""
