"""segdata: raw person-segmentation data to exact masks, honest splits and verified TFRecord shards."""

__version__ = "0.1.0"
