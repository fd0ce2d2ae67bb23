"""What continuous integration does, step by step. Every step is a script of this folder, which also runs on anybody's machine."""
