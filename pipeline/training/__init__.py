"""Training of one model: loop, schedules, sampling, augmentation, several processes."""
