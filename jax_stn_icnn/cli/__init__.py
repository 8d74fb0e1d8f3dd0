"""Programs that no other module imports: the `stn-icnn` command, video, Ray cluster, demo."""
