"""What limbeck says of itself: cards of methods, lists, the demonstration."""
