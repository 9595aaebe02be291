"""Pack a data set into WebDataset shards, verify them, look into them."""
