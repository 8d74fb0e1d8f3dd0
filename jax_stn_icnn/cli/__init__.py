"""The programs: the `stn-icnn` command, video, Ray cluster, browser demo. Nothing imports them."""
