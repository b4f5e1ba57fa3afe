"""A network on photos, videos and cameras: what it is given, what is drawn of it, and where that goes."""
