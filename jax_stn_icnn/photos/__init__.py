"""Reading photos: image files and arrays as RGB, and lists of input files."""
