"""The engines that ours is compared with, fetched and built outside the repository's environment."""
