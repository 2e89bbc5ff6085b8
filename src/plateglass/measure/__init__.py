"""What is measured of images, cells and wells: arrays and frames in, frames and numbers out."""
