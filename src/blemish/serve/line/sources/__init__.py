"""Sources of the line: folders, video files, network cameras, webcams, snapshots, industrial cameras."""
