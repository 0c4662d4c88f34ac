"""The gates that come with the package. They never import each other."""
