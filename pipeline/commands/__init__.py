"""Commands of `heronry`: a module for each."""
