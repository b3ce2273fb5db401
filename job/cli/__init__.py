"""What the commands do: each module turns text into values, calls the job, and prints."""
