"""The schema of params.yaml and of the files between the stages. DVC tracks the values, so that no stage has it as a dep."""
