"""Where a pixel of one view lies in another: cameras, poses, overlap and warp."""
