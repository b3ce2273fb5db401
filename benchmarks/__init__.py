"""What we measure, beside what we could have used instead."""
