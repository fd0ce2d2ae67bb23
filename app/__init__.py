"""The demo: a page on which somebody drops images in and sees what the classifier says. A face of `serving.predictor`."""
