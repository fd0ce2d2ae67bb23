"""What a classifier says of images: views, members, and the tables of predictions."""
