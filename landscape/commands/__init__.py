"""The commands of the command line, one or two a file; heavy imports inside them."""
