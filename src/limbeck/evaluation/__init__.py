"""What is measured: scores, of one network or of a group, how alike networks are, and what a method costs."""
