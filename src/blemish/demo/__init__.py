"""Generated images and the demonstration on them."""
