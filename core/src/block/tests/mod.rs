mod sealed_blocks;
mod together;
mod writing;
