mod sealed_blocks;
mod writing;
