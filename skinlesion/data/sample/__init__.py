"""The embedded sample: synthetic images that look a little like dermoscopy, with metadata in HAM10000's columns."""
