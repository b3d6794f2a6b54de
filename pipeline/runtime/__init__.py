"""Around a training: processes, interruptions, environment. Changes no number."""
