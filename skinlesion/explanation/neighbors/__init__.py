"""The training cases nearest to an image in the space of the features that the head is given."""
