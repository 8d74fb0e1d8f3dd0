"""Photos in and out: reading, finding faces, cutting them out, the parser and its command."""
