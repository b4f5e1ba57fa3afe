"""Person segmentation networks, trained and measured on the shards that ``segdata build-tfrecords`` makes."""
