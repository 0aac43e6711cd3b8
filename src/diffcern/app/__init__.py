"""`diffcern app`: a page to try methods on a picture, to see why, and to look through runs (extra `[app]`)."""
